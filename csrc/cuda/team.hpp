#pragma once
// The Team vocabulary on a GPU, and the only place that knows threads and barriers.
//
// One thread is one lane. What a host compiler sees of a team is its type, for the tile sizes that
// a launch plan counts with.

#include <cstdint>

#include "core/pack.hpp"
#include "core/team.hpp"
#include "linalg/staged.hpp"

namespace torchqp::cuda {

/// Lanes of a warp, and of a block at most.
inline constexpr int kWarp = 32, kMostThreads = 1024;

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

/// Waits for all threads of the block. Between members only: teams of a warp or less then walk
/// through the solver side by side, and one fetches the instructions for all.
TORCHQP_HD void keep_pace() {
#if defined(__CUDA_ARCH__)
  __syncthreads();
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

/// The parts of the vocabulary that follow from lane() and size(). Loops stay loops: a kernel runs
/// through all of the solver, and code that is laid out several times does not fit the instruction
/// cache.
template <class Team>
struct SharesWork {
  template <class F>
  TORCHQP_HD void for_each(int count, F f) const {
    TORCHQP_ROLLED for (int i = self().lane(); i < count; i += self().size()) f(i);
  }
  template <class F>
  TORCHQP_HD void for_each_tile(int begin, int end, int step, F f) const {
    const int stride = self().size() * step;
    TORCHQP_ROLLED for (int i = begin + self().lane() * step; i < end; i += stride) f(i);
  }
  template <class F>
  TORCHQP_HD void for_each_tile_pair(int rows, int cols, int step, bool lower, F f) const {
    for_each_pair_of_lane(self().lane(), self().size(), rows, cols, step, lower, f);
  }
  template <class F>
  TORCHQP_HD void single(F f) const {
    if (self().lane() == 0) f();
  }

 private:
  TORCHQP_HD const Team& self() const { return static_cast<const Team&>(*this); }
};

#if defined(__CUDA_ARCH__)

/// values[c] of lane ^ offset, combined with mine, for all lanes of `mask`.
template <int kCount, class Scalar, class Combine>
__device__ __forceinline__ void exchange(unsigned mask, int offset, Scalar (&values)[kCount],
                                         Combine combine) {
  TORCHQP_UNROLL
  for (int c = 0; c < kCount; ++c)
    values[c] = combine(values[c], __shfl_xor_sync(mask, values[c], offset));
}

struct Largest {
  template <class Scalar>
  TORCHQP_HD Scalar operator()(Scalar a, Scalar b) const {
    return max_norm(a, b);
  }
};
struct Sum {
  template <class Scalar>
  TORCHQP_HD Scalar operator()(Scalar a, Scalar b) const {
    return a + b;
  }
};

#endif

}  // namespace detail

/// A part of a warp, or a whole one: 4, 8, 16 or 32 lanes that stand next to each other.
class NarrowTeam : public detail::SharesWork<NarrowTeam> {
 public:
  template <class Scalar>
  TORCHQP_HD Scalar* stage() const {
    return nullptr;
  }
  TORCHQP_HD explicit NarrowTeam(int size) : size_(size) {
#if defined(__CUDA_ARCH__)
    lane_ = threadIdx.x % size;
    const unsigned first = threadIdx.x % kWarp - lane_;
    mask_ = (size == kWarp ? ~0u : (1u << size) - 1) << first;
#endif
  }
  TORCHQP_HD int lane() const {
    return lane_;
  }
  TORCHQP_HD int size() const {
    return size_;
  }
  template <Site kSite>
  TORCHQP_HD void sync() const {
#if defined(__CUDA_ARCH__)
    __syncwarp(mask_);
#endif
  }
  template <Site kSite, int kCount, class Scalar>
  TORCHQP_HD void max_all([[maybe_unused]] Scalar (&values)[kCount]) const {
#if defined(__CUDA_ARCH__)
    reduce(values, detail::Largest());
#endif
  }
  template <Site kSite, int kCount, class Scalar>
  TORCHQP_HD void add_all([[maybe_unused]] Scalar (&values)[kCount]) const {
#if defined(__CUDA_ARCH__)
    reduce(values, detail::Sum());
#endif
  }
  template <Site kSite, int kCount, class Scalar, class Add>
  TORCHQP_HD void sums([[maybe_unused]] int count, [[maybe_unused]] Scalar (&result)[kCount],
                       [[maybe_unused]] Add add) const {
#if defined(__CUDA_ARCH__)
    // The tree of add_parts: lane l has part l % 8, of four lanes l and l + 4.
    bool first = true;
    TORCHQP_ROLLED for (int part = lane_ % kSumParts; part < kSumParts; part += size_) {
      Scalar partial[kCount];
      sum_part(part, count, partial, add);
      TORCHQP_UNROLL
      for (int c = 0; c < kCount; ++c) result[c] = first ? partial[c] : result[c] + partial[c];
      first = false;
    }
    TORCHQP_ROLLED for (int offset = size_ < kSumParts ? size_ / 2 : kSumParts / 2; offset > 0;
                        offset /= 2) detail::exchange(mask_, offset, result, detail::Sum());
    __syncwarp(mask_);
#endif
  }

 private:
#if defined(__CUDA_ARCH__)
  template <int kCount, class Scalar, class Combine>
  __device__ __forceinline__ void reduce(Scalar (&values)[kCount], Combine combine) const {
    TORCHQP_ROLLED for (int offset = size_ / 2; offset > 0; offset /= 2)
        detail::exchange(mask_, offset, values, combine);
    __syncwarp(mask_);
  }
#endif

  int size_, lane_ = 0;
  unsigned mask_ = 0;
};

/// All threads of a block, whole warps.
class WideTeam : public detail::SharesWork<WideTeam> {
 public:
  /// Values that the lanes exchange at once, at most.
  static constexpr int kMostValues = 16;
  /// Shared memory that a kernel over wide teams takes beside what its plan gives it.
  static constexpr int kSharedBytes =
      static_cast<int>(sizeof(double)) *
      (kMostThreads / kWarp * kMostValues + linalg::staged::kScalars);

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
  template <class Scalar>
  TORCHQP_HD Scalar* stage() const {
#if defined(__CUDA_ARCH__)
    return reinterpret_cast<Scalar*>(stage_memory());
#else
    return nullptr;
#endif
  }
  template <Site kSite, int kCount, class Scalar>
  TORCHQP_HD void max_all([[maybe_unused]] Scalar (&values)[kCount]) const {
#if defined(__CUDA_ARCH__)
    reduce(values, detail::Largest());
#endif
  }
  template <Site kSite, int kCount, class Scalar>
  TORCHQP_HD void add_all([[maybe_unused]] Scalar (&values)[kCount]) const {
#if defined(__CUDA_ARCH__)
    reduce(values, detail::Sum());
#endif
  }
  template <Site kSite, int kCount, class Scalar, class Add>
  TORCHQP_HD void sums([[maybe_unused]] int count, [[maybe_unused]] Scalar (&result)[kCount],
                       [[maybe_unused]] Add add) const {
#if defined(__CUDA_ARCH__)
    // One part to a lane of the first warp, whose lanes then add as add_parts does.
    Scalar(*slots)[kCount] = exchange_slots<kCount, Scalar>();
    if (threadIdx.x < kSumParts) {
      sum_part(static_cast<int>(threadIdx.x), count, result, add);
      TORCHQP_ROLLED for (int offset = kSumParts / 2; offset > 0; offset /= 2)
          detail::exchange((1u << kSumParts) - 1, offset, result, detail::Sum());
      if (threadIdx.x == 0) {
        TORCHQP_UNROLL
        for (int c = 0; c < kCount; ++c) slots[0][c] = result[c];
      }
    }
    __syncthreads();
    TORCHQP_UNROLL
    for (int c = 0; c < kCount; ++c) result[c] = slots[0][c];
    __syncthreads();  // the slots are free again
#endif
  }

 private:
#if defined(__CUDA_ARCH__)
  /// One array for every routine of a kernel, whatever its type.
  __device__ __noinline__ static double* stage_memory() {
    __shared__ double memory[linalg::staged::kScalars];
    return memory;
  }
  __device__ __noinline__ static double* slot_memory() {
    __shared__ double memory[kMostThreads / kWarp * kMostValues];
    return memory;
  }

  /// A place for the values of each warp.
  template <int kCount, class Scalar>
  __device__ __forceinline__ static Scalar (*exchange_slots())[kCount] {
    static_assert(kCount <= kMostValues);
    return reinterpret_cast<Scalar(*)[kCount]>(slot_memory());
  }

  template <int kCount, class Scalar, class Combine>
  __device__ __forceinline__ void reduce(Scalar (&values)[kCount], Combine combine) const {
    TORCHQP_ROLLED for (int offset = kWarp / 2; offset > 0; offset /= 2)
        detail::exchange(~0u, offset, values, combine);
    Scalar(*slots)[kCount] = exchange_slots<kCount, Scalar>();
    if (threadIdx.x % kWarp == 0) {
      TORCHQP_UNROLL
      for (int c = 0; c < kCount; ++c) slots[threadIdx.x / kWarp][c] = values[c];
    }
    __syncthreads();
    TORCHQP_UNROLL
    for (int c = 0; c < kCount; ++c) values[c] = slots[0][c];
    TORCHQP_ROLLED for (unsigned warp = 1; warp < blockDim.x / kWarp; ++warp) {
      TORCHQP_UNROLL
      for (int c = 0; c < kCount; ++c) values[c] = combine(values[c], slots[warp][c]);
    }
    __syncthreads();  // the slots are free again
  }
#endif
};

}  // namespace torchqp::cuda

namespace torchqp {
TORCHQP_BEGIN_ISA_NAMESPACE

/// A block has a lane for every sum.
template <class Scalar>
inline constexpr int sums_per_lane_v<cuda::WideTeam, Scalar> = 1;

TORCHQP_END_ISA_NAMESPACE
}  // namespace torchqp
