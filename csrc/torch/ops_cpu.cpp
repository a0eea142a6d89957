// The operators on CPU tensors: check, allocate the outputs, let the threads share the batch.

#include <ATen/Dispatch.h>
#include <ATen/EmptyTensor.h>
#include <ATen/Parallel.h>
#include <torch/library.h>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <algorithm>
#include <array>
#include <cstdint>
#include <new>
#include <string_view>
#include <tuple>
#include <vector>

#include "cpu/gradient_batch.hpp"
#include "cpu/kkt_batch.hpp"
#include "cpu/solve_batch.hpp"
#include "torch/args.hpp"

namespace torchqp::torch_ops {
namespace {

constexpr int64_t kGrain = 32768;           // entries that are worth a thread
constexpr size_t kKept = size_t{64} << 20;  // scratch bytes that all threads together keep
constexpr size_t kHugePage = size_t{2} << 20;

/// Asks for huge pages under fresh memory of many pages, whose first touch is otherwise most of the
/// time that a large gradient takes. A request: where the system knows none, nothing happens.
void advise_huge_pages([[maybe_unused]] void* data, [[maybe_unused]] size_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  constexpr size_t kLeast = 2 * kHugePage;
  if (bytes < kLeast) return;
  const auto begin = reinterpret_cast<uintptr_t>(data);
  const uintptr_t first = (begin + kHugePage - 1) / kHugePage * kHugePage;
  const uintptr_t last = (begin + bytes) / kHugePage * kHugePage;
  // Whole huge pages only: the memory around the array keeps its own.
  if (first < last) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
#endif
}

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

/// A fresh contiguous output [*, core] of dtype like `like`, or of `dtype`.
Tensor output(const Batch& batch, std::initializer_list<int64_t> core, const Tensor& like,
              std::optional<at::ScalarType> dtype = std::nullopt) {
  c10::DimVector shape = batch.shape;
  shape.append(core.begin(), core.end());
  // Not at::empty: this is the CPU's kernel already, and small solves feel a dispatch per output.
  Tensor result(at::detail::empty_cpu(shape, dtype.value_or(like.scalar_type())));
  advise_huge_pages(result.mutable_data_ptr(), result.nbytes());
  return result;
}

using SolveOutputs = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor,
                                Tensor, Tensor, Tensor>;

SolveOutputs solve_cpu(const Tensor& Q, const Tensor& q, const OptionalTensor& G,
                       const OptionalTensor& h_lower, const OptionalTensor& h,
                       const OptionalTensor& A, const OptionalTensor& b, const OptionalTensor& lb,
                       const OptionalTensor& ub, const OptionalTensor& z0,
                       const OptionalTensor& nu0, const OptionalTensor& lam0,
                       const OptionalTensor& lam_lb0, const OptionalTensor& lam_ub0, bool diagonal,
                       std::string_view backward, at::ArrayRef<double> /*backward_options*/,
                       double eps_abs, double eps_rel, int64_t max_iter, bool polish,
                       bool best_iterate, bool save_factor) {
  const Settings settings =
      check_settings(backward, eps_abs, eps_rel, max_iter, polish, best_iterate);
  const SolveTensors tensors{Q,  q,  G,   h_lower, h,       A,       b,       lb,
                             ub, z0, nu0, lam0,    lam_lb0, lam_ub0, diagonal};
  const Batch batch = check_solve(tensors);
  const Dims& dims = batch.dims;

  const int64_t n = dims.n, m = dims.m, p = dims.p;
  const Tensor z = output(batch, {n}, Q);
  const Tensor nu = output(batch, {p}, Q);
  const Tensor lam = output(batch, {m}, Q);
  const Tensor lam_lb = output(batch, {dims.lb ? n : 0}, Q);
  const Tensor lam_ub = output(batch, {dims.ub ? n : 0}, Q);
  const Tensor slack = output(batch, {m}, Q);
  const Tensor status = output(batch, {}, Q, at::kInt);
  const Tensor iterations = output(batch, {}, Q, at::kInt);
  const Tensor residuals = output(batch, {4}, Q);
  const Tensor active = output(batch, {dims.bounds() ? m + n : m}, Q, at::kChar);
  const Tensor factor = output(batch, {save_factor ? factor_size(dims) : 0}, Q);

  AT_DISPATCH_FLOATING_TYPES(Q.scalar_type(), "torchqp::solve", [&] {
    const ProblemBatch<scalar_t> problem = problem_batch<scalar_t>(tensors, batch);
    SolutionBatch<scalar_t> solution;
    solution.z = z.mutable_data_ptr<scalar_t>();
    solution.nu = nu.mutable_data_ptr<scalar_t>();
    solution.lam = lam.mutable_data_ptr<scalar_t>();
    solution.lam_lb = dims.lb ? lam_lb.mutable_data_ptr<scalar_t>() : nullptr;
    solution.lam_ub = dims.ub ? lam_ub.mutable_data_ptr<scalar_t>() : nullptr;
    solution.slack = slack.mutable_data_ptr<scalar_t>();
    solution.status = status.mutable_data_ptr<int32_t>();
    solution.iterations = iterations.mutable_data_ptr<int32_t>();
    solution.residuals = residuals.mutable_data_ptr<scalar_t>();
    solution.active = active.mutable_data_ptr<int8_t>();
    solution.factor = save_factor ? factor.mutable_data_ptr<scalar_t>() : nullptr;
    for_each_part(batch.size, cpu::members_per_pack<scalar_t>(dims),
                  cpu::solve_workspace_bytes<scalar_t>(dims),
                  [&](int64_t begin, int64_t end, void* workspace) {
                    cpu::solve_batch(problem, settings, solution, begin, end, workspace);
                  });
  });
  return {z, nu, lam, lam_lb, lam_ub, slack, status, iterations, residuals, active, factor};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> kkt_solve_cpu(
    const Tensor& Q, const OptionalTensor& G, const OptionalTensor& A, const Tensor& active,
    const Tensor& status, const OptionalTensor& factor, const Tensor& g_z,
    const OptionalTensor& g_nu, const OptionalTensor& g_lam, const OptionalTensor& g_bound,
    bool diagonal) {
  const KktTensors tensors{Q, G, A, active, status, factor, g_z, g_nu, g_lam, g_bound, diagonal};
  const Batch batch = check_kkt(tensors);
  const Dims& dims = batch.dims;

  const Tensor d_z = output(batch, {dims.n}, Q);
  const Tensor d_nu = output(batch, {dims.p}, Q);
  const Tensor d_lam = output(batch, {dims.m}, Q);
  const Tensor d_bound = output(batch, {dims.bounds() ? dims.n : 0}, Q);

  AT_DISPATCH_FLOATING_TYPES(Q.scalar_type(), "torchqp::kkt_solve", [&] {
    KktBatch<scalar_t> system = kkt_batch<scalar_t>(tensors, batch);
    system.d_z = d_z.mutable_data_ptr<scalar_t>();
    system.d_nu = d_nu.mutable_data_ptr<scalar_t>();
    system.d_lam = d_lam.mutable_data_ptr<scalar_t>();
    system.d_bound = dims.bounds() ? d_bound.mutable_data_ptr<scalar_t>() : nullptr;
    for_each_part(batch.size, cpu::pack_width<scalar_t>(), cpu::kkt_workspace_bytes<scalar_t>(dims),
                  [&](int64_t begin, int64_t end, void* workspace) {
                    cpu::kkt_batch(system, begin, end, workspace);
                  });
  });
  return {d_z, d_nu, d_lam, d_bound};
}

/// `tensor` as a contiguous array over the whole batch; its leading dimensions need not cover that.
Tensor dense(const Tensor& tensor, int64_t core_dims, const Batch& batch) {
  c10::DimVector shape = batch.shape;
  if (core_dims == 1) shape.push_back(tensor.size(-1));
  if (tensor.sizes() == shape && tensor.is_contiguous()) return tensor;
  return tensor.expand(shape).contiguous();
}

using Gradients = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

Gradients parameter_gradients_cpu(const Tensor& z, const Tensor& nu, const Tensor& lam,
                                  const Tensor& d_z, const Tensor& d_nu, const Tensor& d_lam,
                                  const OptionalTensor& d_bound, const OptionalTensor& g_slack,
                                  const Tensor& active, const Tensor& status,
                                  std::array<bool, 8> wanted, bool diagonal) {
  const Batch batch =
      check_gradients({z, nu, lam, d_z, d_nu, d_lam, d_bound, g_slack, active, status, diagonal});
  const Dims& dims = batch.dims;
  const int64_t n = dims.n, m = dims.m, p = dims.p;

  std::vector<Tensor> kept;  // the copies that `dense` had to make
  const auto vector = [&](const Tensor& tensor) {
    return kept.emplace_back(dense(tensor, 1, batch));
  };
  std::array<Tensor, 8> grads;
  int64_t entries = 0;  // of one member
  AT_DISPATCH_FLOATING_TYPES(z.scalar_type(), "torchqp::parameter_gradients", [&] {
    const auto values = [&](const Tensor& tensor) {
      return vector(tensor).template const_data_ptr<scalar_t>();
    };
    const auto optional = [&](const OptionalTensor& tensor) {
      const bool given = tensor.has_value() && tensor->defined() && tensor->numel() != 0;
      return given ? values(*tensor) : nullptr;
    };
    GradientBatch<scalar_t> gradients;
    gradients.dims = dims;
    gradients.size = batch.size;
    gradients.z = values(z);
    gradients.nu = values(nu);
    gradients.lam = values(lam);
    gradients.d_z = values(d_z);
    gradients.d_nu = values(d_nu);
    gradients.d_lam = values(d_lam);
    gradients.d_bound = optional(d_bound);
    gradients.g_slack = optional(g_slack);
    gradients.active = vector(active).const_data_ptr<int8_t>();
    gradients.status = kept.emplace_back(dense(status, 0, batch)).const_data_ptr<int32_t>();

    const auto wants = [&](size_t i, scalar_t*& to, std::initializer_list<int64_t> core) {
      if (!wanted[i]) {
        grads[i] = Tensor(at::detail::empty_cpu({0}, z.scalar_type()));
        return;
      }
      grads[i] = output(batch, core, z);
      to = grads[i].template mutable_data_ptr<scalar_t>();
      entries += c10::multiply_integers(core);
    };
    if (diagonal) {
      wants(0, gradients.Q, {n});
    } else {
      wants(0, gradients.Q, {n, n});
    }
    wants(1, gradients.G, {m, n});
    wants(2, gradients.h_lower, {m});
    wants(3, gradients.h, {m});
    wants(4, gradients.A, {p, n});
    wants(5, gradients.b, {p});
    wants(6, gradients.lb, {n});
    wants(7, gradients.ub, {n});
    const int64_t grain = kGrain / std::max<int64_t>(1, entries);
    at::parallel_for(0, batch.size, std::max<int64_t>(1, grain), [&](int64_t begin, int64_t end) {
      cpu::gradient_batch(gradients, begin, end);
    });
  });
  return std::tuple_cat(grads);
}

}  // namespace
}  // namespace torchqp::torch_ops

TORCH_LIBRARY_IMPL(torchqp, CPU, m) {
  m.impl("solve", TORCH_FN(torchqp::torch_ops::solve_cpu));
  m.impl("kkt_solve", TORCH_FN(torchqp::torch_ops::kkt_solve_cpu));
  m.impl("parameter_gradients", TORCH_FN(torchqp::torch_ops::parameter_gradients_cpu));
}
