// The gradients of a batch: what is written passes through memory once, neighbours by neighbours.

#include <algorithm>

#include "core/status.hpp"
#include "cuda/solve_batch.hpp"
#include "cuda/team.hpp"

namespace torchqp::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kEntriesPerBlock = 8192;  // of the largest array: 32 a thread

/// Writes entries of the members first .. first + count - 1 of one array with `size` entries a
/// member: entry(gradients, i) where the member is solved, else zero.
template <class Team, class T, class Entry>
__device__ void write_entries(const Team& team, const GradientBatch<T>& batch, T* to, int size,
                              int64_t first, int count, const Entry& entry) {
  if (to == nullptr || size == 0) return;
  T* mine = to + first * size;
  team.for_each(count * size, [&](int at) {
    const int member = at / size, i = at - member * size;
    const bool solved = is_solved(static_cast<Status>(batch.status[first + member]));
    mine[at] = solved ? entry(MemberGradients<T>(batch, first + member), i) : T(0);
  });
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    gradient_kernel(const __grid_constant__ GradientBatch<T> batch, int members) {
  using Gradients = MemberGradients<T>;
  const WideTeam team;
  const int n = batch.dims.n, m = batch.dims.m, p = batch.dims.p;
  const int64_t first = block_index() * members;
  const int count = static_cast<int>(first + members < batch.size ? members : batch.size - first);
  const auto write = [&](T* to, int size, const auto& entry) {
    write_entries(team, batch, to, size, first, count, entry);
  };
  const auto write_rows = [&](T* to, int rows, const auto& row_of) {
    write(to, rows * n, [&](const Gradients& gradients, int at) {
      const int i = at / n, j = at - i * n;
      const auto row = row_of(gradients, i);
      return row.a * gradients.z()[j] + row.b * gradients.d_z()[j];
    });
  };
  if (batch.dims.diagonal) {
    write(batch.Q, n, [](const Gradients& g, int i) { return g.diagonal(i); });
  } else {
    write_rows(batch.Q, n, [](const Gradients& g, int i) { return g.Q(i); });
  }
  write_rows(batch.G, m, [](const Gradients& g, int i) { return g.G(i); });
  write_rows(batch.A, p, [](const Gradients& g, int i) { return g.A(i); });
  write(batch.b, p, [](const Gradients& g, int i) { return g.b(i); });
  write(batch.h, m, [](const Gradients& g, int i) { return g.h(i); });
  write(batch.h_lower, m, [](const Gradients& g, int i) { return g.h_lower(i); });
  write(batch.ub, n, [](const Gradients& g, int i) { return g.ub(i); });
  write(batch.lb, n, [](const Gradients& g, int i) { return g.lb(i); });
}

}  // namespace

template <class T>
cudaError_t gradient_batch(const GradientBatch<T>& batch, cudaStream_t stream) {
  if (batch.size == 0) return cudaSuccess;
  const int64_t rows = std::max({batch.dims.n, batch.dims.m, batch.dims.p, 1});
  const int64_t largest = rows * std::max(batch.dims.n, 1);
  // A batch of any size fits the grid: its first dimension has 2^31 - 1 blocks.
  const int64_t least = (batch.size + kMostBlocks - 1) / kMostBlocks;
  const int64_t members = std::max({int64_t{1}, kEntriesPerBlock / largest, least});
  const int64_t blocks = (batch.size + members - 1) / members;
  gradient_kernel<T>
      <<<static_cast<unsigned>(blocks), kThreads, 0, stream>>>(batch, static_cast<int>(members));
  return cudaGetLastError();
}

template cudaError_t gradient_batch(const GradientBatch<float>&, cudaStream_t);
template cudaError_t gradient_batch(const GradientBatch<double>&, cudaStream_t);

}  // namespace torchqp::cuda
