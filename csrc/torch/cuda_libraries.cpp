#include "torch/cuda_libraries.hpp"

#include <ATen/cuda/CUDAContextLight.h>
#include <c10/util/Exception.h>
#include <cusolverDn.h>

#include <map>
#include <mutex>
#include <vector>

namespace torchqp::torch_ops {
namespace {

/// The handles that no thread has at the moment, by device. torch has such a pool too, in a library
/// that it opens when its own linear algebra first runs (libtorch_cuda_linalg), not to be linked to.
/// They are never destroyed: when a process ends, the driver may be gone before its threads.
class FreeHandles {
 public:
  static FreeHandles& all() {
    static FreeHandles* const handles = new FreeHandles;
    return *handles;
  }
  /// One for the current device, which is `device`.
  cusolverDnHandle_t take(c10::DeviceIndex device) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      std::vector<cusolverDnHandle_t>& free = free_[device];
      if (!free.empty()) {
        const cusolverDnHandle_t handle = free.back();
        free.pop_back();
        return handle;
      }
    }
    cusolverDnHandle_t handle = nullptr;
    const cusolverStatus_t status = cusolverDnCreate(&handle);
    TORCH_CHECK(status == CUSOLVER_STATUS_SUCCESS, "torchqp: cusolverDnCreate returned status ",
                static_cast<int>(status));
    return handle;
  }
  void give(c10::DeviceIndex device, cusolverDnHandle_t handle) {
    const std::lock_guard<std::mutex> lock(mutex_);
    free_[device].push_back(handle);
  }

 private:
  std::mutex mutex_;
  std::map<c10::DeviceIndex, std::vector<cusolverDnHandle_t>> free_;
};

/// Those of one thread.
class ThreadHandles {
 public:
  ThreadHandles() = default;
  ThreadHandles(const ThreadHandles&) = delete;
  ThreadHandles& operator=(const ThreadHandles&) = delete;
  ~ThreadHandles() {
    for (const auto& [device, handle] : mine_) FreeHandles::all().give(device, handle);
  }
  cusolverDnHandle_t on(c10::DeviceIndex device) {
    auto found = mine_.find(device);
    if (found == mine_.end()) found = mine_.emplace(device, FreeHandles::all().take(device)).first;
    return found->second;
  }

 private:
  std::map<c10::DeviceIndex, cusolverDnHandle_t> mine_;
};

}  // namespace

cuda::Libraries libraries_on(c10::cuda::CUDAStream stream) {
  thread_local ThreadHandles handles;
  cuda::Libraries libraries;
  libraries.solver = handles.on(stream.device_index());
  const cusolverStatus_t status = cusolverDnSetStream(libraries.solver, stream);
  TORCH_CHECK(status == CUSOLVER_STATUS_SUCCESS, "torchqp: cusolverDnSetStream returned status ",
              static_cast<int>(status));
  libraries.blas = at::cuda::getCurrentCUDABlasHandle();  // on the current stream
  return libraries;
}

}  // namespace torchqp::torch_ops
