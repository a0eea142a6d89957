#include "cuda/solve_batch.hpp"

#include <algorithm>

#include "cuda/launch.hpp"
#include "cuda/setup_batch.hpp"

namespace torchqp::cuda {
namespace {

template <class T>
const Kernels& kernels_for(bool wide) {
  const KernelTable& table = wide ? wide_kernels() : narrow_kernels();
  return sizeof(T) == 4 ? table.single_precision : table.double_precision;
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
size_t solve_workspace_bytes(const Dims& dims, int64_t size, const Device& device, bool libraries) {
  const bool single = sizeof(T) != sizeof(double), skips = single && skips_single(dims);
  const int64_t first = plan_solve<T>(dims, size, device).workspace_bytes;
  const int64_t retry = plan_solve<double>(dims, size, device).workspace_bytes;
  size_t most = static_cast<size_t>(std::max(first, retry));
  if (libraries && prefers_libraries(dims))
    most = std::max(most, skips ? setup_workspace_bytes<double>(dims, size, device)
                                : setup_workspace_bytes<T>(dims, size, device));
  return most;
}

template <class T>
Error solve_batch(const ProblemBatch<T>& problem, const Settings& settings,
                  const SolutionBatch<T>& solution, const Device& device, void* workspace,
                  cudaStream_t stream, const Libraries& libraries) {
  if (problem.size == 0) return {};
  const Settings choice = with_data_precision<T>(settings);
  const bool outside = libraries && prefers_libraries(problem.dims);
  const auto solve = [&](auto precision) {
    using Scalar = decltype(precision);
    constexpr bool kRetry = sizeof(Scalar) != sizeof(T);
    if (outside && (!kRetry || skips_single(problem.dims))) {
      const Kernels& table = kernels_for<T>(true);
      return solve_with_libraries<Scalar>(kRetry ? table.setup_retry : table.setup, problem, choice,
                                          solution, device, workspace, stream, libraries);
    }
    const LaunchPlan plan = plan_solve<Scalar>(problem.dims, problem.size, device);
    const Kernels& table = kernels_for<T>(plan.wide);
    return launch(kRetry ? table.retry : table.solve, plan, workspace, stream, problem, choice,
                  solution);
  };
  if constexpr (sizeof(T) == sizeof(double)) {
    return solve(T());
  } else {
    if (!skips_single(problem.dims))
      if (const Error error = solve(T())) return error;
    return solve(double());
  }
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
  return launch(kernels_for<T>(plan.wide).kkt, plan, workspace, stream, system).runtime;
}

#define TORCHQP_INSTANTIATE(T)                                                                 \
  template size_t solve_workspace_bytes<T>(const Dims&, int64_t, const Device&, bool);         \
  template Error solve_batch(const ProblemBatch<T>&, const Settings&, const SolutionBatch<T>&, \
                             const Device&, void*, cudaStream_t, const Libraries&);            \
  template size_t kkt_workspace_bytes<T>(const Dims&, int64_t, const Device&);                 \
  template cudaError_t kkt_batch(const KktBatch<T>&, const Device&, void*, cudaStream_t);
TORCHQP_INSTANTIATE(float)
TORCHQP_INSTANTIATE(double)
#undef TORCHQP_INSTANTIATE

}  // namespace torchqp::cuda
