// The operators on CUDA tensors: one launch on the current stream, or, for large problems, a few and the
// calls of cuBLAS and cuSOLVER between them; memory from PyTorch's allocator.
// Nothing here waits for the device or reads a result, so that every call can be captured into a
// CUDA graph.

#include <ATen/cuda/EmptyTensor.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include <array>
#include <mutex>

#include "cuda/device.hpp"
#include "cuda/launch_plan.hpp"
#include "cuda/solve_batch.hpp"
#include "torch/cuda_libraries.hpp"
#include "torch/ops.hpp"

namespace torchqp::torch_ops {
namespace {

/// The properties of a GPU, asked for once. Thread-safe; a query that fails is repeated by the next
/// call.
const cuda::Device& properties(c10::DeviceIndex index) {
  static std::array<std::once_flag, C10_COMPILE_TIME_MAX_GPUS> asked;
  static std::array<cuda::Device, C10_COMPILE_TIME_MAX_GPUS> devices;
  const auto i = static_cast<size_t>(index);
  std::call_once(asked.at(i), [&] { C10_CUDA_CHECK(cuda::query_device(index, devices[i])); });
  return devices[i];
}

class Cuda {
 public:
  explicit Cuda(const Tensor& first)
      : guard_(first.device()),
        stream_(c10::cuda::getCurrentCUDAStream(first.device().index())),
        device_(properties(first.device().index())) {}

  Tensor empty(at::IntArrayRef shape, at::ScalarType dtype) const {
    // Not at::empty, as on the CPU.
    return Tensor(at::detail::empty_cuda(shape, dtype, guard_.current_device(), std::nullopt));
  }

  template <class T>
  void solve(const ProblemBatch<T>& problem, const Settings& settings,
             const SolutionBatch<T>& solution) const {
    if (problem.size == 0) return;
    const bool large = cuda::prefers_libraries(problem.dims);
    const cuda::Libraries libraries = large ? libraries_on(stream_) : cuda::Libraries{};
    const Tensor scratch =
        workspace(cuda::solve_workspace_bytes<T>(problem.dims, problem.size, device_, large));
    const cuda::Error error = cuda::solve_batch(problem, settings, solution, device_,
                                                scratch.mutable_data_ptr(), stream_, libraries);
    C10_CUDA_CHECK(error.runtime);
    TORCH_CHECK(!error, "torchqp: ", error.message());
  }

  template <class T>
  void kkt(const KktBatch<T>& system) const {
    if (system.size == 0) return;
    const Tensor scratch =
        workspace(cuda::kkt_workspace_bytes<T>(system.dims, system.size, device_));
    C10_CUDA_CHECK(cuda::kkt_batch(system, device_, scratch.mutable_data_ptr(), stream_));
  }

  /// Sums over the batch are matrix products.
  static bool sums_gradients(int64_t /*entries*/) { return false; }

  template <class T>
  void gradients(const GradientBatch<T>& batch, int64_t entries) const {
    if (batch.size == 0 || entries == 0) return;
    C10_CUDA_CHECK(cuda::gradient_batch(batch, stream_));
  }

  template <class T>
  void kkt_gradients(const KktBatch<T>& system, const GradientBatch<T>& batch,
                     int64_t entries) const {
    kkt(system);
    gradients(batch, entries);
  }

  template <class T>
  void lpgd_move(const LpgdBatch<T>& batch) const {
    C10_CUDA_CHECK(cuda::lpgd_move_batch(batch, stream_));
  }

  template <class T>
  void lpgd_difference(const LpgdBatch<T>& batch) const {
    C10_CUDA_CHECK(cuda::lpgd_difference_batch(batch, stream_));
  }

 private:
  /// Goes back to the allocator when the call returns, which hands it out again in the order of the
  /// same stream only.
  Tensor workspace(size_t bytes) const { return empty({static_cast<int64_t>(bytes)}, at::kByte); }

  c10::cuda::CUDAGuard guard_;  // first: what follows asks for the current device
  c10::cuda::CUDAStream stream_;
  const cuda::Device& device_;
};

}  // namespace
}  // namespace torchqp::torch_ops

TORCH_LIBRARY_IMPL(torchqp, CUDA, m) {
  torchqp::torch_ops::register_kernels<torchqp::torch_ops::Cuda>(m);
}
