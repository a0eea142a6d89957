#pragma once
// The product path on the GPU: launches on the caller's stream, memory from the caller.
//
// Nothing here allocates, waits for the device or looks at a result: every call can be captured into
// a CUDA graph. The current device must be the one that holds the data. No torch header.

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <string>

#include "core/gradients.hpp"
#include "core/lpgd.hpp"
#include "core/problem.hpp"
#include "core/settings.hpp"
#include "cuda/device.hpp"

struct cublasContext;      // what a cublasHandle_t
struct cusolverDnContext;  // and a cusolverDnHandle_t point to

namespace torchqp::cuda {

/// Handles of cuBLAS and cuSOLVER on the current device, for the set-up of large problems. Their stream
/// is that of the call. They are in use until the call returns, and what it has put on the stream has
/// run. Nothing is allocated if cuBLAS has a workspace (cublasSetWorkspace).
struct Libraries {
  cublasContext* blas = nullptr;
  cusolverDnContext* solver = nullptr;

  /// Whether there are any; without them a block does all of its problem.
  explicit operator bool() const { return blas != nullptr && solver != nullptr; }
};

/// What went wrong on the host, if anything: the code of the first call that failed, after which none
/// was made.
struct Error {
  cudaError_t runtime = cudaSuccess;
  int blas = 0;    ///< cublasStatus_t
  int solver = 0;  ///< cusolverStatus_t

  /// Whether there is one.
  explicit operator bool() const { return runtime != cudaSuccess || blas != 0 || solver != 0; }
  /// Who failed, and with what.
  std::string message() const;
};

/// Reads the properties of a GPU, index as cudaSetDevice's. A call of microseconds: keep the answer.
cudaError_t query_device(int index, Device& device);

/// Bytes of device memory that one call of solve_batch needs as scratch; any content, 256-byte
/// aligned. `libraries`: whether the call has any.
template <class T>
size_t solve_workspace_bytes(const Dims& dims, int64_t size, const Device& device, bool libraries);

/// Solves the whole batch. `problem` and `solution` point to device memory. Same outcome as
/// cpu::solve_batch over the whole batch: to the bit, but for the rounding of a set-up that libraries
/// compute, if there are any: see prefers_libraries. No error for an empty batch.
template <class T>
Error solve_batch(const ProblemBatch<T>& problem, const Settings& settings,
                  const SolutionBatch<T>& solution, const Device& device, void* workspace,
                  cudaStream_t stream, const Libraries& libraries = {});

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
