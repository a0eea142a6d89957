#include "cuda/runtime.hpp"

#include "core/problem.hpp"
#include "core/settings.hpp"

namespace torchqp::cuda {
namespace {

const void* entry(Kind kind, bool wide, size_t element, bool retry,
                  std::vector<size_t> parameters) {
  for (size_t bytes : {sizeof(Split), sizeof(void*)}) parameters.push_back(bytes);
  return new Entry{kind, wide, element, retry, std::move(parameters)};  // as code, for good
}

template <class Scalar, class T>
SetupKernels describe_setup() {
  const bool retry = sizeof(Scalar) != sizeof(T);
  return {entry(Kind::kLayOut, true, sizeof(T), retry,
                {sizeof(ProblemBatch<T>), sizeof(int64_t), sizeof(SetupPointers<Scalar>)}),
          entry(Kind::kCouple, true, sizeof(T), retry, {sizeof(Dims)}),
          entry(Kind::kFinish, true, sizeof(T), retry,
                {sizeof(ProblemBatch<T>), sizeof(Settings), sizeof(SolutionBatch<T>),
                 sizeof(int64_t), sizeof(int64_t), sizeof(int*)})};
}

template <class T>
Kernels describe(bool wide) {
  const bool twice = sizeof(T) == sizeof(double);
  const auto solve = [&](bool retry) {
    return entry(Kind::kSolve, wide, sizeof(T), retry,
                 {sizeof(ProblemBatch<T>), sizeof(Settings), sizeof(SolutionBatch<T>)});
  };
  return {solve(false), twice ? nullptr : solve(true),
          entry(Kind::kKkt, wide, sizeof(T), false, {sizeof(KktBatch<T>)}),
          wide ? describe_setup<T, T>() : SetupKernels{},
          wide && !twice ? describe_setup<double, T>() : SetupKernels{}};
}

KernelTable describe(bool wide) {
  return {describe<float>(wide), describe<double>(wide)};
}

cudaError_t record(Call call) {
  return fails(std::move(call)) ? runtime().error : cudaSuccess;
}

}  // namespace

Runtime& runtime() {
  static Runtime state;
  return state;
}

bool fails(Call call) {
  Runtime& state = runtime();
  state.calls.push_back(std::move(call));
  return static_cast<int>(state.calls.size()) == state.failing + 1;
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
  const cudaError_t error = record(call);
  if (error == cudaSuccess && runtime().execute) runtime().execute(call);
  return error;
}

const char* CUDARTAPI cudaGetErrorString(cudaError_t) {
  return "an error of the runtime";
}

}  // extern "C"
