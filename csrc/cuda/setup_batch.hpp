#pragma once
// A solve whose set-up libraries compute, for as many members at once as the workspace holds.

#include "cuda/kernel_table.hpp"
#include "cuda/solve_batch.hpp"

namespace torchqp::cuda {

/// Bytes of workspace for set-ups in the precision Scalar.
template <class Scalar>
size_t setup_workspace_bytes(const Dims& dims, int64_t size, const Device& device);

/// Solves the batch in the precision Scalar by `kernels`, which are for data of type T. Otherwise as
/// solve_batch; libraries are there, and the batch is not empty.
template <class Scalar, class T>
Error solve_with_libraries(const SetupKernels& kernels, const ProblemBatch<T>& problem,
                           const Settings& settings, const SolutionBatch<T>& solution,
                           const Device& device, void* workspace, cudaStream_t stream,
                           const Libraries& libraries);

}  // namespace torchqp::cuda
