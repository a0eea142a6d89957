#pragma once
// The product path on the GPU: launches on the caller's stream, memory from the caller.
//
// Nothing here allocates, waits for the device or looks at a result: every call can be captured into
// a CUDA graph. The current device must be the one that holds the data. No torch header.

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "core/gradients.hpp"
#include "core/lpgd.hpp"
#include "core/problem.hpp"
#include "core/settings.hpp"
#include "cuda/device.hpp"

namespace torchqp::cuda {

/// Reads the properties of a GPU, index as cudaSetDevice's. A call of microseconds: keep the answer.
cudaError_t query_device(int index, Device& device);

/// Bytes of device memory that one call of solve_batch needs as scratch; any content, 256-byte
/// aligned.
template <class T>
size_t solve_workspace_bytes(const Dims& dims, int64_t size, const Device& device);

/// Solves the whole batch. `problem` and `solution` point to device memory. Same outcome as
/// cpu::solve_batch over the whole batch; returns the error of the launch, cudaSuccess for an empty
/// batch.
template <class T>
cudaError_t solve_batch(const ProblemBatch<T>& problem, const Settings& settings,
                        const SolutionBatch<T>& solution, const Device& device, void* workspace,
                        cudaStream_t stream);

/// As solve_workspace_bytes, for kkt_batch.
template <class T>
size_t kkt_workspace_bytes(const Dims& dims, int64_t size, const Device& device);

/// Solves one linearised KKT system a member; as cpu::kkt_batch over the whole batch.
template <class T>
cudaError_t kkt_batch(const KktBatch<T>& system, const Device& device, void* workspace,
                      cudaStream_t stream);

/// Writes the gradients of every parameter that has an array in `batch`; as cpu::gradient_batch over
/// the whole batch.
template <class T>
cudaError_t gradient_batch(const GradientBatch<T>& batch, cudaStream_t stream);

/// As cpu::lpgd_move_batch and cpu::lpgd_difference_batch over the whole batch.
template <class T>
cudaError_t lpgd_move_batch(const LpgdBatch<T>& batch, cudaStream_t stream);
template <class T>
cudaError_t lpgd_difference_batch(const LpgdBatch<T>& batch, cudaStream_t stream);

}  // namespace torchqp::cuda
