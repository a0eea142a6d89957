#include "cuda/solve_batch.hpp"

#include <algorithm>

#include "cuda/kernel_table.hpp"

namespace torchqp::cuda {
namespace {

template <class T>
const Kernels& kernels(const LaunchPlan& plan) {
  const KernelTable& table = plan.wide ? wide_kernels() : narrow_kernels();
  return sizeof(T) == 4 ? table.single_precision : table.double_precision;
}

/// Launches a kernel whose last two parameters are the Split of its plan and the workspace.
template <class... Arguments>
cudaError_t launch(const void* kernel, const LaunchPlan& plan, void* workspace, cudaStream_t stream,
                   const Arguments&... arguments) {
  const int bytes = static_cast<int>(plan.shared_bytes);
  const cudaError_t error =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  if (error != cudaSuccess) return error;
  Split split{plan.lanes, plan.hot, plan.coldest, plan.head_bytes, plan.hot_bytes, plan.cold_bytes};
  void* parameters[] = {const_cast<void*>(static_cast<const void*>(&arguments))..., &split,
                        &workspace};
  return cudaLaunchKernel(kernel, dim3(static_cast<unsigned>(plan.blocks)),
                          dim3(static_cast<unsigned>(plan.threads())), parameters,
                          static_cast<size_t>(plan.shared_bytes), stream);
}

}  // namespace

cudaError_t query_device(int index, Device& device) {
  const auto read = [&](int& value, cudaDeviceAttr attribute) {
    return cudaDeviceGetAttribute(&value, attribute, index);
  };
  cudaError_t error = read(device.multiprocessors, cudaDevAttrMultiProcessorCount);
  if (error == cudaSuccess)
    error = read(device.threads_per_multiprocessor, cudaDevAttrMaxThreadsPerMultiProcessor);
  if (error == cudaSuccess)
    error = read(device.registers_per_multiprocessor, cudaDevAttrMaxRegistersPerMultiprocessor);
  if (error == cudaSuccess)
    error = read(device.shared_per_multiprocessor, cudaDevAttrMaxSharedMemoryPerMultiprocessor);
  if (error == cudaSuccess)
    error = read(device.shared_per_block, cudaDevAttrMaxSharedMemoryPerBlockOptin);
  if (error == cudaSuccess)
    error = read(device.shared_reserved, cudaDevAttrReservedSharedMemoryPerBlock);
  return error;
}

template <class T>
size_t solve_workspace_bytes(const Dims& dims, int64_t size, const Device& device) {
  const int64_t first = plan_solve<T>(dims, size, device).workspace_bytes;
  const int64_t retry = plan_solve<double>(dims, size, device).workspace_bytes;
  return static_cast<size_t>(std::max(first, retry));
}

template <class T>
cudaError_t solve_batch(const ProblemBatch<T>& problem, const Settings& settings,
                        const SolutionBatch<T>& solution, const Device& device, void* workspace,
                        cudaStream_t stream) {
  if (problem.size == 0) return cudaSuccess;
  const Settings choice = with_data_precision<T>(settings);
  const bool single = sizeof(T) != sizeof(double);
  if (!single || !skips_single(problem.dims)) {
    const LaunchPlan plan = plan_solve<T>(problem.dims, problem.size, device);
    const cudaError_t error =
        launch(kernels<T>(plan).solve, plan, workspace, stream, problem, choice, solution);
    if (error != cudaSuccess || !single) return error;
  }
  const LaunchPlan again = plan_solve<double>(problem.dims, problem.size, device);
  return launch(kernels<T>(again).retry, again, workspace, stream, problem, choice, solution);
}

template <class T>
size_t kkt_workspace_bytes(const Dims& dims, int64_t size, const Device& device) {
  return static_cast<size_t>(plan_kkt<T>(dims, size, device).workspace_bytes);
}

template <class T>
cudaError_t kkt_batch(const KktBatch<T>& system, const Device& device, void* workspace,
                      cudaStream_t stream) {
  if (system.size == 0) return cudaSuccess;
  const LaunchPlan plan = plan_kkt<T>(system.dims, system.size, device);
  return launch(kernels<T>(plan).kkt, plan, workspace, stream, system);
}

#define TORCHQP_INSTANTIATE(T)                                                                   \
  template size_t solve_workspace_bytes<T>(const Dims&, int64_t, const Device&);                 \
  template cudaError_t solve_batch(const ProblemBatch<T>&, const Settings&,                      \
                                   const SolutionBatch<T>&, const Device&, void*, cudaStream_t); \
  template size_t kkt_workspace_bytes<T>(const Dims&, int64_t, const Device&);                   \
  template cudaError_t kkt_batch(const KktBatch<T>&, const Device&, void*, cudaStream_t);
TORCHQP_INSTANTIATE(float)
TORCHQP_INSTANTIATE(double)
#undef TORCHQP_INSTANTIATE

}  // namespace torchqp::cuda
