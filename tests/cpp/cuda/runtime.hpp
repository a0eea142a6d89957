#pragma once
// A stand-in for the CUDA runtime, cuBLAS and cuSOLVER that records what the host's half asks of them,
// and refuses one call on request. Its kernel tables hold descriptions of kernels in place of code; who
// runs them is up to the test.

#include <cublas_v2.h>
#include <cuda_runtime_api.h>
#include <cusolverDn.h>

#include <cstddef>
#include <cstring>
#include <functional>
#include <stdexcept>
#include <vector>

#include "cuda/kernel_table.hpp"
#include "cuda/solve_batch.hpp"

namespace torchqp::cuda {

enum class Kind { kSolve, kKkt, kLayOut, kCouple, kFinish };

/// What an entry point of the tables stands for.
struct Entry {
  Kind kind;
  bool wide;
  size_t element;                  ///< bytes of the element type of the data
  bool retry;                      ///< works in double precision on float data
  std::vector<size_t> parameters;  ///< bytes of each
};

enum class Function {
  kGetAttribute,
  kSetAttribute,
  kLaunch,
  kBlasMode,  ///< a mode of the cuBLAS handle is asked for or set
  kFactor,    ///< potrfBatched
  kSolve,     ///< trsmBatched
  kMultiply,  ///< gemmStridedBatched
};

/// One call, with the arguments that its function has.
struct Call {
  Function function;
  int attribute = 0, value = 0;  ///< the value of a device's attribute is its index
  const void* kernel = nullptr;
  dim3 grid{}, block{};
  size_t shared_bytes = 0;
  cudaStream_t stream = nullptr;
  std::vector<std::vector<unsigned char>> parameters{};  ///< copied when the launch was made
  int members = 0;                                       ///< of a call of cuBLAS or cuSOLVER

  template <class P>
  P parameter(size_t index) const {
    const std::vector<unsigned char>& bytes = parameters.at(index);
    if (bytes.size() != sizeof(P)) throw std::logic_error("a parameter of another size");
    P value;
    std::memcpy(&value, bytes.data(), sizeof(P));
    return value;
  }
};

struct Runtime {
  std::vector<Call> calls;
  int failing = -1;  ///< the index of the call that fails with the error of its library
  cudaError_t error = cudaErrorLaunchOutOfResources;
  cublasStatus_t blas_error = CUBLAS_STATUS_EXECUTION_FAILED;
  cusolverStatus_t solver_error = CUSOLVER_STATUS_INTERNAL_ERROR;
  cublasMath_t math = CUBLAS_TF32_TENSOR_OP_MATH;  ///< modes of the cuBLAS handle
  cublasPointerMode_t pointer = CUBLAS_POINTER_MODE_DEVICE;
  /// Runs a launch. Where there is one, the libraries compute too, on the host's memory.
  std::function<void(const Call&)> execute;
};

/// What the functions write to.
Runtime& runtime();

/// Handles that no one looks into.
inline const Libraries kLibraries{reinterpret_cast<cublasHandle_t>(0x8000),
                                  reinterpret_cast<cusolverDnHandle_t>(0x9000)};

/// Notes a call; whether it is the one that fails.
bool fails(Call call);

/// What the stand-in answers for an attribute of a device: another number for each.
constexpr int attribute_of_device(cudaDeviceAttr attribute) {
  return 1000 + static_cast<int>(attribute);
}

}  // namespace torchqp::cuda
