#pragma once
// A stand-in for the CUDA runtime that records what solve_batch.cpp asks of it, and refuses one call
// on request. Its kernel tables hold descriptions of kernels in place of code.

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstring>
#include <stdexcept>
#include <vector>

#include "cuda/kernel_table.hpp"

namespace torchqp::cuda {

/// What an entry point of the tables stands for.
struct Entry {
  bool wide;
  size_t element;  ///< bytes of the element type of the data
  bool retry;
  std::vector<size_t> parameters;  ///< bytes of each
};

enum class Function { kGetAttribute, kSetAttribute, kLaunch };

/// One call of the runtime, with the arguments that its function has.
struct Call {
  Function function;
  int attribute = 0, value = 0;  ///< the value of a device's attribute is its index
  const void* kernel = nullptr;
  dim3 grid{}, block{};
  size_t shared_bytes = 0;
  cudaStream_t stream = nullptr;
  std::vector<std::vector<unsigned char>> parameters{};  ///< copied when the launch was made

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
  int failing = -1;  ///< the index of the call that fails with `error`
  cudaError_t error = cudaErrorLaunchOutOfResources;
};

/// What the functions of the runtime write to.
Runtime& runtime();

/// What the stand-in answers for an attribute of a device: another number for each.
constexpr int attribute_of_device(cudaDeviceAttr attribute) {
  return 1000 + static_cast<int>(attribute);
}

}  // namespace torchqp::cuda
