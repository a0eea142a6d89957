#pragma once
// How a kernel of the tables is launched.

#include <cuda_runtime_api.h>

#include "cuda/kernel_table.hpp"
#include "cuda/solve_batch.hpp"

namespace torchqp::cuda {

/// Launches a kernel whose last two parameters are the Split of its plan and the workspace.
template <class... Arguments>
Error launch(const void* kernel, const LaunchPlan& plan, void* workspace, cudaStream_t stream,
             const Arguments&... arguments) {
  const int bytes = static_cast<int>(plan.shared_bytes);
  const cudaError_t error =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  if (error != cudaSuccess) return {error};
  Split split{plan.lanes, plan.hot, plan.coldest, plan.head_bytes, plan.hot_bytes, plan.cold_bytes};
  void* parameters[] = {const_cast<void*>(static_cast<const void*>(&arguments))..., &split,
                        &workspace};
  return {cudaLaunchKernel(kernel, dim3(static_cast<unsigned>(plan.blocks)),
                           dim3(static_cast<unsigned>(plan.threads())), parameters,
                           static_cast<size_t>(plan.shared_bytes), stream)};
}

}  // namespace torchqp::cuda
