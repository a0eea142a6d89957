#pragma once
// The Team vocabulary on a GPU, and the only place that knows threads and barriers.
//
// One thread is one lane. What a host compiler sees of a team is its type, for the tile sizes that
// a launch plan counts with.

#include <cstdint>

#include "core/pack.hpp"
#include "core/team.hpp"

namespace torchqp::cuda {

/// Lanes of a warp.
inline constexpr int kWarp = 32;

/// Blocks that a grid can have.
inline constexpr int64_t kMostBlocks = 2147483647;

/// This block's place in the grid.
TORCHQP_HD int64_t block_index() {
#if defined(__CUDA_ARCH__)
  return blockIdx.x;
#else
  return 0;
#endif
}

/// Blocks of the grid.
TORCHQP_HD int64_t block_count() {
#if defined(__CUDA_ARCH__)
  return gridDim.x;
#else
  return 1;
#endif
}

/// How many teams of so many lanes the block has, and which of them this thread belongs to.
TORCHQP_HD int teams_in_block([[maybe_unused]] int lanes) {
#if defined(__CUDA_ARCH__)
  return blockDim.x / lanes;
#else
  return 1;
#endif
}
TORCHQP_HD int team_in_block([[maybe_unused]] int lanes) {
#if defined(__CUDA_ARCH__)
  return threadIdx.x / lanes;
#else
  return 0;
#endif
}

namespace detail {

/// The parts of the vocabulary that follow from lane() and size().
template <class Team>
struct SharesWork {
  template <class F>
  TORCHQP_HD void for_each(int count, F f) const {
    for (int i = self().lane(); i < count; i += self().size()) f(i);
  }
  template <class F>
  TORCHQP_HD void for_each_tile(int begin, int end, int step, F f) const {
    for (int i = begin + self().lane() * step; i < end; i += self().size() * step) f(i);
  }
  template <class F>
  TORCHQP_HD void single(F f) const {
    if (self().lane() == 0) f();
  }

 private:
  TORCHQP_HD const Team& self() const { return static_cast<const Team&>(*this); }
};

}  // namespace detail

/// A part of a warp, or a whole one: 1, 2, 4, .. 32 lanes that stand next to each other.
class NarrowTeam : public detail::SharesWork<NarrowTeam> {
 public:
  TORCHQP_HD explicit NarrowTeam(int size) : size_(size) {
#if defined(__CUDA_ARCH__)
    lane_ = threadIdx.x % size;
    const unsigned first = threadIdx.x % kWarp - lane_;
    mask_ = (size == kWarp ? ~0u : (1u << size) - 1) << first;
#endif
  }
  TORCHQP_HD int lane() const { return lane_; }
  TORCHQP_HD int size() const { return size_; }
  template <Site kSite>
  TORCHQP_HD void sync() const {
#if defined(__CUDA_ARCH__)
    __syncwarp(mask_);
#endif
  }

 private:
  int size_, lane_ = 0;
  unsigned mask_ = 0;
};

/// All threads of a block.
class WideTeam : public detail::SharesWork<WideTeam> {
 public:
  TORCHQP_HD int lane() const {
#if defined(__CUDA_ARCH__)
    return threadIdx.x;
#else
    return 0;
#endif
  }
  TORCHQP_HD int size() const {
#if defined(__CUDA_ARCH__)
    return blockDim.x;
#else
    return 1;
#endif
  }
  template <Site kSite>
  TORCHQP_HD void sync() const {
#if defined(__CUDA_ARCH__)
    __syncthreads();
#endif
  }
};

}  // namespace torchqp::cuda
