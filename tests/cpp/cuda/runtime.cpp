#include "cuda/runtime.hpp"

#include "core/problem.hpp"
#include "core/settings.hpp"

namespace torchqp::cuda {
namespace {

template <class T>
Kernels describe(bool wide) {
  const auto entry = [&](bool retry, std::vector<size_t> parameters) -> const void* {
    return new Entry{wide, sizeof(T), retry, std::move(parameters)};  // as code, for good
  };
  const std::vector<size_t> solve{sizeof(ProblemBatch<T>), sizeof(Settings),
                                  sizeof(SolutionBatch<T>), sizeof(Split), sizeof(void*)};
  return {entry(false, solve), sizeof(T) == sizeof(double) ? nullptr : entry(true, solve),
          entry(false, {sizeof(KktBatch<T>), sizeof(Split), sizeof(void*)})};
}

KernelTable describe(bool wide) {
  return {describe<float>(wide), describe<double>(wide)};
}

cudaError_t record(Call call) {
  Runtime& state = runtime();
  const bool fails = static_cast<int>(state.calls.size()) == state.failing;
  state.calls.push_back(std::move(call));
  return fails ? state.error : cudaSuccess;
}

}  // namespace

Runtime& runtime() {
  static Runtime state;
  return state;
}

const KernelTable& narrow_kernels() {
  static const KernelTable table = describe(false);
  return table;
}

const KernelTable& wide_kernels() {
  static const KernelTable table = describe(true);
  return table;
}

}  // namespace torchqp::cuda

extern "C" {

cudaError_t CUDARTAPI cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  using namespace torchqp::cuda;
  Call call{.function = Function::kGetAttribute, .attribute = attribute, .value = device};
  const cudaError_t error = record(std::move(call));
  if (error == cudaSuccess) *value = attribute_of_device(attribute);
  return error;
}

cudaError_t CUDARTAPI cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute,
                                           int value) {
  using namespace torchqp::cuda;
  return record({.function = Function::kSetAttribute,
                 .attribute = attribute,
                 .value = value,
                 .kernel = kernel});
}

cudaError_t CUDARTAPI cudaLaunchKernel(const void* kernel, dim3 grid, dim3 block, void** parameters,
                                       size_t shared_bytes, cudaStream_t stream) {
  using namespace torchqp::cuda;
  Call call{.function = Function::kLaunch,
            .kernel = kernel,
            .grid = grid,
            .block = block,
            .shared_bytes = shared_bytes,
            .stream = stream};
  size_t index = 0;
  for (size_t bytes : static_cast<const Entry*>(kernel)->parameters) {
    const auto* from = static_cast<const unsigned char*>(parameters[index++]);
    call.parameters.emplace_back(from, from + bytes);
  }
  return record(std::move(call));
}

}  // extern "C"
