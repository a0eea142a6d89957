#pragma once
// cuBLAS and cuSOLVER for the operators on CUDA tensors.

#include <c10/cuda/CUDAStream.h>

#include "cuda/solve_batch.hpp"

namespace torchqp::torch_ops {

/// This thread's handles for the current device, on `stream`, which must be one of that device. The
/// cuBLAS handle and its workspace are torch's. cuSOLVER's is made by a thread's first call on a
/// device, and taken over by another when the thread ends.
cuda::Libraries libraries_on(c10::cuda::CUDAStream stream);

}  // namespace torchqp::torch_ops
