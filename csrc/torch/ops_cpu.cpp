// The operators on CPU tensors: the threads share the batch.

#include <ATen/EmptyTensor.h>
#include <ATen/Parallel.h>
#include <torch/library.h>

#include <algorithm>
#include <cstdint>
#include <new>

#include "cpu/gradient_batch.hpp"
#include "cpu/kkt_batch.hpp"
#include "cpu/lpgd_batch.hpp"
#include "cpu/solve_batch.hpp"
#include "torch/cpu_memory.hpp"
#include "torch/ops.hpp"

namespace torchqp::torch_ops {
namespace {

constexpr int64_t kGrain = 32768;           // entries that are worth a thread
constexpr size_t kKept = size_t{64} << 20;  // scratch bytes that all threads together keep

/// Entries of one member's matrices up to which their sums are formed beside its gradients. Against
/// matrix products a member took 0.084 of 0.124 us (n = m = 10), 0.63 of 0.69 (50), 2.2 of 1.8 (100).
constexpr int64_t kLargestSum = 8192;

/// The scratch memory of one thread, kept for its next call: fresh pages can cost a call as much as
/// its work.
class Workspace {
 public:
  /// At least `bytes` bytes of any content, 64-byte aligned, for this thread until its next call.
  static Workspace& of_this_thread(size_t bytes) {
    thread_local Workspace workspace;
    if (workspace.bytes_ < bytes) workspace.allocate(bytes);
    return workspace;
  }

  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;
  ~Workspace() { free(); }

  void* data() const { return data_; }

  /// Ends a call: what is too large to keep goes back at once.
  void release(size_t kept) {
    if (bytes_ > kept) free();
  }

 private:
  static constexpr std::align_val_t kAlignment{64};  // a cache line, and the widest SIMD register

  Workspace() = default;

  void allocate(size_t bytes) {
    free();
    data_ = ::operator new(bytes, kAlignment);
    bytes_ = bytes;
    advise_huge_pages(data_, bytes);
  }

  void free() {
    ::operator delete(data_, kAlignment);
    data_ = nullptr;
    bytes_ = 0;
  }

  void* data_ = nullptr;
  size_t bytes_ = 0;
};

/// Calls run(begin, end, workspace) on parts of the batch that together cover it, each part on one
/// thread.
///
/// Parts begin at multiples of `width`, the members of a pack: a pack that two threads had to share
/// would be computed twice over.
template <class Run>
void for_each_part(int64_t batch_size, int64_t width, size_t workspace_bytes, const Run& run) {
  const size_t kept = kKept / static_cast<size_t>(at::get_num_threads());
  at::parallel_for(0, at::divup(batch_size, width), 1, [&](int64_t first_pack, int64_t last_pack) {
    Workspace& workspace = Workspace::of_this_thread(workspace_bytes);
    run(first_pack * width, std::min(batch_size, last_pack * width), workspace.data());
    workspace.release(kept);
  });
}

/// Calls run(begin, end) on ranges of the members that together cover them, each with enough entries
/// for a thread.
template <class Run>
void for_each_range(int64_t batch_size, int64_t entries, const Run& run) {
  const int64_t grain = kGrain / std::max<int64_t>(1, entries);
  at::parallel_for(0, batch_size, std::max<int64_t>(1, grain), run);
}

class Cpu {
 public:
  explicit Cpu(const Tensor& /*first*/) {}

  Tensor empty(at::IntArrayRef shape, at::ScalarType dtype) const {
    // Not at::empty: this is the CPU's kernel already, and small solves feel a dispatch per output.
    constexpr c10::DispatchKeySet kCpu(c10::DispatchKey::CPU);
    return Tensor(at::detail::empty_generic(shape, result_allocator(), kCpu, dtype, std::nullopt));
  }

  template <class T>
  void solve(const ProblemBatch<T>& problem, const Settings& settings,
             const SolutionBatch<T>& solution) const {
    for_each_part(problem.size, cpu::members_per_pack<T>(problem.dims),
                  cpu::solve_workspace_bytes<T>(problem.dims),
                  [&](int64_t begin, int64_t end, void* workspace) {
                    cpu::solve_batch(problem, settings, solution, begin, end, workspace);
                  });
  }

  template <class T>
  void kkt(const KktBatch<T>& system) const {
    for_each_part(system.size, cpu::pack_width<T>(), cpu::kkt_workspace_bytes<T>(system.dims),
                  [&](int64_t begin, int64_t end, void* workspace) {
                    cpu::kkt_batch(system, begin, end, workspace);
                  });
  }

  /// Whether sums over the batch of matrices with so many entries are formed on the way.
  static bool sums_gradients(int64_t entries) { return entries <= kLargestSum; }

  template <class T>
  void gradients(const GradientBatch<T>& batch, int64_t entries) const {
    const int64_t unit = std::max<int64_t>(1, batch.sums.part);  // a part is one thread's
    for_each_range(at::divup(batch.size, unit), unit * entries, [&](int64_t begin, int64_t end) {
      cpu::gradient_batch(batch, begin * unit, std::min(end * unit, batch.size));
    });
  }

  /// The gradients of a pack's members directly after its systems: what they are made of is at hand
  /// then, and is written while the next systems are read.
  template <class T>
  void kkt_gradients(const KktBatch<T>& system, const GradientBatch<T>& batch,
                     int64_t /*entries*/) const {
    const int64_t width = cpu::members_per_pack<T>(system.dims);
    for_each_part(system.size, std::max(width, batch.sums.part),
                  cpu::kkt_workspace_bytes<T>(system.dims),
                  [&](int64_t begin, int64_t end, void* workspace) {
                    for (; begin < end; begin += width) {
                      const int64_t next = std::min(begin + width, end);
                      cpu::kkt_batch(system, begin, next, workspace);
                      cpu::gradient_batch(batch, begin, next);
                    }
                  });
  }

  template <class T>
  void lpgd_move(const LpgdBatch<T>& batch) const {
    for_each_range(batch.size, batch.ends * rows_of(batch.dims),
                   [&](int64_t begin, int64_t end) { cpu::lpgd_move_batch(batch, begin, end); });
  }

  template <class T>
  void lpgd_difference(const LpgdBatch<T>& batch) const {
    for_each_range(batch.size, batch.ends * rows_of(batch.dims), [&](int64_t begin, int64_t end) {
      cpu::lpgd_difference_batch(batch, begin, end);
    });
  }

 private:
  static int64_t rows_of(const Dims& dims) { return int64_t{dims.n} + dims.m + dims.p; }
};

}  // namespace
}  // namespace torchqp::torch_ops

TORCH_LIBRARY_IMPL(torchqp, CPU, m) {
  torchqp::torch_ops::register_kernels<torchqp::torch_ops::Cpu>(m);
}
