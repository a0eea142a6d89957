// The two halves of the LPGD adjoint around its solves: a warp for each member, so that neighbours
// read and write neighbouring entries.

#include "core/lpgd_member.hpp"
#include "cuda/solve_batch.hpp"
#include "cuda/team.hpp"

namespace torchqp::cuda {
namespace {

constexpr int kTeams = 8;  // of a block
constexpr int kThreads = kTeams * kWarp;

/// f(team, member) for all members of the batch.
template <class F>
__device__ void for_each_member(int64_t size, const F& f) {
  const NarrowTeam team(kWarp);
  const int64_t stride = block_count() * kTeams;
  for (int64_t i = block_index() * kTeams + team_in_block(kWarp); i < size; i += stride) f(team, i);
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    lpgd_move_kernel(const __grid_constant__ LpgdBatch<T> batch) {
  for_each_member(batch.size,
                  [&](const NarrowTeam& team, int64_t i) { lpgd_move(team, batch, i); });
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    lpgd_difference_kernel(const __grid_constant__ LpgdBatch<T> batch) {
  for_each_member(batch.size,
                  [&](const NarrowTeam& team, int64_t i) { lpgd_difference(team, batch, i); });
}

/// A batch of any size fits the grid.
unsigned blocks_for(int64_t size) {
  const int64_t blocks = (size + kTeams - 1) / kTeams;
  return static_cast<unsigned>(blocks < kMostBlocks ? blocks : kMostBlocks);
}

}  // namespace

template <class T>
cudaError_t lpgd_move_batch(const LpgdBatch<T>& batch, cudaStream_t stream) {
  if (batch.size == 0) return cudaSuccess;
  lpgd_move_kernel<T><<<blocks_for(batch.size), kThreads, 0, stream>>>(batch);
  return cudaGetLastError();
}

template <class T>
cudaError_t lpgd_difference_batch(const LpgdBatch<T>& batch, cudaStream_t stream) {
  if (batch.size == 0) return cudaSuccess;
  lpgd_difference_kernel<T><<<blocks_for(batch.size), kThreads, 0, stream>>>(batch);
  return cudaGetLastError();
}

#define TORCHQP_INSTANTIATE(T)                                             \
  template cudaError_t lpgd_move_batch(const LpgdBatch<T>&, cudaStream_t); \
  template cudaError_t lpgd_difference_batch(const LpgdBatch<T>&, cudaStream_t);
TORCHQP_INSTANTIATE(float)
TORCHQP_INSTANTIATE(double)
#undef TORCHQP_INSTANTIATE

}  // namespace torchqp::cuda
