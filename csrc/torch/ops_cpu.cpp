// The operators on CPU tensors: check, allocate the outputs, let the threads share the batch.

#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <algorithm>
#include <memory>
#include <new>
#include <string_view>
#include <tuple>

#include "cpu/kkt_batch.hpp"
#include "cpu/solve_batch.hpp"
#include "torch/args.hpp"

namespace torchqp::torch_ops {
namespace {

constexpr std::align_val_t kAlignment{64};  // a cache line, and the widest SIMD register

struct AlignedDelete {
  void operator()(void* pointer) const { ::operator delete(pointer, kAlignment); }
};

/// Calls run(begin, end, workspace) on parts of the batch that together cover it, each part on one
/// thread.
///
/// Parts begin at multiples of the pack width: a pack that two threads had to share would be
/// computed twice over.
template <class T, class Run>
void for_each_part(int64_t batch_size, size_t workspace_bytes, const Run& run) {
  const int64_t width = cpu::pack_width<T>();
  at::parallel_for(0, at::divup(batch_size, width), 1, [&](int64_t first_pack, int64_t last_pack) {
    const std::unique_ptr<void, AlignedDelete> workspace(
        ::operator new(workspace_bytes, kAlignment));
    run(first_pack * width, std::min(batch_size, last_pack * width), workspace.get());
  });
}

/// A fresh contiguous output [*, core] of dtype like `like`, or of `dtype`.
Tensor output(const Batch& batch, std::initializer_list<int64_t> core, const Tensor& like,
              std::optional<at::ScalarType> dtype = std::nullopt) {
  c10::DimVector shape = batch.shape;
  shape.append(core.begin(), core.end());
  return at::empty(shape, like.options().dtype(dtype.value_or(like.scalar_type())));
}

using SolveOutputs =
    std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

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
    solution.status = status.mutable_data_ptr<int32_t>();
    solution.iterations = iterations.mutable_data_ptr<int32_t>();
    solution.residuals = residuals.mutable_data_ptr<scalar_t>();
    solution.active = active.mutable_data_ptr<int8_t>();
    solution.factor = save_factor ? factor.mutable_data_ptr<scalar_t>() : nullptr;
    for_each_part<scalar_t>(batch.size, cpu::solve_workspace_bytes<scalar_t>(dims),
                            [&](int64_t begin, int64_t end, void* workspace) {
                              cpu::solve_batch(problem, settings, solution, begin, end, workspace);
                            });
  });
  return {z, nu, lam, lam_lb, lam_ub, status, iterations, residuals, active, factor};
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
    for_each_part<scalar_t>(batch.size, cpu::kkt_workspace_bytes<scalar_t>(dims),
                            [&](int64_t begin, int64_t end, void* workspace) {
                              cpu::kkt_batch(system, begin, end, workspace);
                            });
  });
  return {d_z, d_nu, d_lam, d_bound};
}

}  // namespace
}  // namespace torchqp::torch_ops

TORCH_LIBRARY_IMPL(torchqp, CPU, m) {
  m.impl("solve", TORCH_FN(torchqp::torch_ops::solve_cpu));
  m.impl("kkt_solve", TORCH_FN(torchqp::torch_ops::kkt_solve_cpu));
}
