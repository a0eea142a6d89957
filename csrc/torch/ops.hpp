#pragma once
// The kernels of the operators, written once: check the arguments, allocate the outputs, hand views
// of both to the machine that holds them.
//
// A Machine is made from the first tensor after the checks, lives for the call, and offers
//
//   empty(shape, dtype)                       a fresh contiguous tensor
//   solve(problem, settings, solution)        the whole batch; so do
//   kkt(system)
//   gradients(batch, entries)                 entries: how many of one member are written or summed
//   kkt_gradients(system, batch, entries)     both, one after the other for a member
//   sums_gradients(entries)                   whether the two above sum so many
//   lpgd_move(batch), lpgd_difference(batch)
//
// The outputs are complete when the call returns, or, on a device with streams, in the order of the
// current stream.

#include <ATen/Dispatch.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/eye.h>
#include <torch/library.h>

#include <optional>
#include <string_view>
#include <tuple>
#include <vector>

#include "core/lpgd.hpp"
#include "core/problem.hpp"
#include "core/settings.hpp"
#include "torch/adjoint_ops.hpp"
#include "torch/args.hpp"
#include "torch/outputs.hpp"
#include "torch/results.hpp"

namespace torchqp::torch_ops {

/// solve with checked settings.
template <class Machine>
SolveOutputs solve_with(const SolveTensors& tensors, const Settings& settings, bool save_factor) {
  const Batch batch = check_solve(tensors);
  const Dims& dims = batch.dims;
  const Machine machine(tensors.Q);

  const at::ScalarType dtype = tensors.Q.scalar_type();
  const int64_t n = dims.n, m = dims.m, p = dims.p;
  const Tensor z = output(machine, batch, {n}, dtype);
  const Tensor nu = output(machine, batch, {p}, dtype);
  const Tensor lam = output(machine, batch, {m}, dtype);
  const Tensor lam_lb = output(machine, batch, {dims.lb ? n : 0}, dtype);
  const Tensor lam_ub = output(machine, batch, {dims.ub ? n : 0}, dtype);
  const Tensor slack = output(machine, batch, {m}, dtype);
  const Tensor status = output(machine, batch, {}, at::kInt);
  const Tensor iterations = output(machine, batch, {}, at::kInt);
  const Tensor residuals = output(machine, batch, {4}, dtype);
  const Tensor active = output(machine, batch, {dims.bounds() ? m + n : m}, at::kChar);
  const Tensor factor = output(machine, batch, {save_factor ? factor_size(dims) : 0}, dtype);

  AT_DISPATCH_FLOATING_TYPES(dtype, "torchqp::solve", [&] {
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
    machine.solve(problem_batch<scalar_t>(tensors, batch), settings, solution);
  });
  return {z, nu, lam, lam_lb, lam_ub, slack, status, iterations, residuals, active, factor};
}

template <class Machine>
SolveOutputs solve(const Tensor& Q, const Tensor& q, const OptionalTensor& G,
                   const OptionalTensor& h_lower, const OptionalTensor& h, const OptionalTensor& A,
                   const OptionalTensor& b, const OptionalTensor& lb, const OptionalTensor& ub,
                   const OptionalTensor& z0, const OptionalTensor& nu0, const OptionalTensor& lam0,
                   const OptionalTensor& lam_lb0, const OptionalTensor& lam_ub0, bool diagonal,
                   std::string_view backward, at::ArrayRef<double> /*backward_options*/,
                   double eps_abs, double eps_rel, int64_t max_iter, bool polish, bool best_iterate,
                   bool save_factor, bool near_start) {
  Settings settings = check_settings(backward, eps_abs, eps_rel, max_iter, polish, best_iterate);
  settings.near_start = near_start;
  return solve_with<Machine>(
      {Q, q, G, h_lower, h, A, b, lb, ub, z0, nu0, lam0, lam_lb0, lam_ub0, diagonal}, settings,
      save_factor);
}

template <class Machine>
LpgdOutputs lpgd(const Tensor& Q, const Tensor& q, const OptionalTensor& G,
                 const OptionalTensor& h_lower, const OptionalTensor& h, const OptionalTensor& A,
                 const OptionalTensor& b, const OptionalTensor& lb, const OptionalTensor& ub,
                 const Tensor& z, const Tensor& nu, const Tensor& lam, const Tensor& lam_lb,
                 const Tensor& lam_ub, const Tensor& status, const OptionalTensor& g_z,
                 const OptionalTensor& g_nu, const OptionalTensor& g_lam,
                 const OptionalTensor& g_lb, const OptionalTensor& g_ub, bool diagonal, double tau,
                 bool relative, int64_t side, double rho, double eps_abs, double eps_rel,
                 int64_t max_iter, bool polish) {
  check_lpgd_options(tau, side, rho);
  Settings settings = check_settings("lpgd", eps_abs, eps_rel, max_iter, polish, false);
  settings.near_start = false;  // a step looks beyond where the active set changes
  const OptionalTensor z0 = z, nu0 = nu, lam0 = lam, lam_lb0 = lam_lb, lam_ub0 = lam_ub;
  const SolveTensors problem{Q,  q,  G,   h_lower, h,       A,       b,       lb,
                             ub, z0, nu0, lam0,    lam_lb0, lam_ub0, diagonal};
  const LpgdTensors tensors{status, g_z, g_nu, g_lam, g_lb, g_ub};
  const Batch batch = check_lpgd(problem, tensors);
  const Dims& dims = batch.dims;
  const int64_t n = dims.n, m = dims.m, p = dims.p;
  const Machine machine(Q);
  const at::ScalarType dtype = Q.scalar_type();

  const int64_t ends = side == 2 ? 2 : 1;
  const auto moved = [&](bool wanted, int64_t size) -> OptionalTensor {
    if (!wanted) return std::nullopt;
    c10::DimVector shape{ends};
    shape.append(batch.shape.begin(), batch.shape.end());
    shape.push_back(size);
    return machine.empty(shape, dtype);
  };
  const bool bounds_move =
      (dims.lb && given(g_lb) != nullptr) || (dims.ub && given(g_ub) != nullptr);
  const OptionalTensor moved_q = moved(given(g_z) != nullptr || rho != 0, n);
  const OptionalTensor moved_h_lower = moved(dims.h_lower && given(g_lam) != nullptr, m);
  const OptionalTensor moved_h = moved(dims.h_upper && given(g_lam) != nullptr, m);
  const OptionalTensor moved_b = moved(given(b) != nullptr && given(g_nu) != nullptr, p);
  const OptionalTensor moved_lb = moved(dims.lb && bounds_move, n);
  const OptionalTensor moved_ub = moved(dims.ub && bounds_move, n);
  const Tensor step = output(machine, batch, {}, dtype);

  const auto fresh = [&](int64_t size) { return output(machine, batch, {size}, dtype); };
  const Tensor d_z = fresh(n), mean_z = fresh(n), d_nu = fresh(p), mean_nu = fresh(p);
  const Tensor d_lam = fresh(m), mean_lam = fresh(m), grad_h_lower = fresh(m), grad_h = fresh(m);
  const Tensor grad_lb = fresh(dims.lb ? n : 0), grad_ub = fresh(dims.ub ? n : 0);
  const Tensor info = output(machine, batch, {}, at::kInt);

  std::vector<Tensor> kept;  // the copies that `dense` had to make
  AT_DISPATCH_FLOATING_TYPES(dtype, "torchqp::lpgd", [&] {
    const auto values = [&](const Tensor& tensor) {
      return kept.emplace_back(dense(tensor, 1, batch)).template const_data_ptr<scalar_t>();
    };
    const auto to = [](const OptionalTensor& tensor) {
      return tensor ? tensor->mutable_data_ptr<scalar_t>() : nullptr;
    };
    LpgdBatch<scalar_t> lpgd = lpgd_batch<scalar_t>(problem, tensors, batch);
    lpgd.ends = static_cast<int>(ends);
    lpgd.increases = side != 1;
    lpgd.tau = static_cast<scalar_t>(tau);
    lpgd.relative = relative;
    lpgd.rho = static_cast<scalar_t>(rho);
    lpgd.z = values(z), lpgd.nu = values(nu), lpgd.lam = values(lam);
    lpgd.lam_lb = values(lam_lb), lpgd.lam_ub = values(lam_ub);
    lpgd.status = kept.emplace_back(dense(status, 0, batch)).template const_data_ptr<int32_t>();
    lpgd.step = step.mutable_data_ptr<scalar_t>();
    lpgd.moved_q = to(moved_q), lpgd.moved_b = to(moved_b);
    lpgd.moved_h_lower = to(moved_h_lower), lpgd.moved_h = to(moved_h);
    lpgd.moved_lb = to(moved_lb), lpgd.moved_ub = to(moved_ub);
    machine.lpgd_move(lpgd);

    const auto or_as_is = [](const OptionalTensor& changed, const OptionalTensor& own) {
      return changed ? changed : own;
    };
    Tensor proximal = Q;
    if (rho != 0) proximal = diagonal ? Q + rho : Q + rho * at::eye(n, Q.options());
    const OptionalTensor end_h_lower = or_as_is(moved_h_lower, h_lower),
                         end_h = or_as_is(moved_h, h);
    const OptionalTensor end_b = or_as_is(moved_b, b), end_lb = or_as_is(moved_lb, lb);
    const OptionalTensor end_ub = or_as_is(moved_ub, ub);
    const SolveOutputs reached =
        solve_with<Machine>({proximal, moved_q ? *moved_q : q, G, end_h_lower, end_h, A, end_b,
                             end_lb, end_ub, z0, nu0, lam0, lam_lb0, lam_ub0, diagonal},
                            settings, false);
    const auto& [end_z, end_nu, end_lam, end_lam_lb, end_lam_ub, slack, end_status, iterations,
                 residuals, active, factor] = reached;
    lpgd.end_z = end_z.template const_data_ptr<scalar_t>();
    lpgd.end_nu = end_nu.template const_data_ptr<scalar_t>();
    lpgd.end_lam = end_lam.template const_data_ptr<scalar_t>();
    lpgd.end_lam_lb = end_lam_lb.template const_data_ptr<scalar_t>();
    lpgd.end_lam_ub = end_lam_ub.template const_data_ptr<scalar_t>();
    lpgd.end_status = end_status.template const_data_ptr<int32_t>();
    lpgd.d_z = to(d_z), lpgd.mean_z = to(mean_z);
    lpgd.d_nu = to(d_nu), lpgd.mean_nu = to(mean_nu);
    lpgd.d_lam = to(d_lam), lpgd.mean_lam = to(mean_lam);
    lpgd.h_lower_grad = to(grad_h_lower), lpgd.h_grad = to(grad_h);
    lpgd.lb_grad = dims.lb ? to(grad_lb) : nullptr;
    lpgd.ub_grad = dims.ub ? to(grad_ub) : nullptr;
    lpgd.info = info.mutable_data_ptr<int32_t>();
    machine.lpgd_difference(lpgd);
  });
  return {d_z,          mean_z, d_nu,    mean_nu, d_lam, mean_lam,
          grad_h_lower, grad_h, grad_lb, grad_ub, info};
}

/// Makes these the kernels of the operators for the dispatch key that `m` stands for.
template <class Machine>
void register_kernels(torch::Library& m) {
  m.impl("solve", TORCH_FN(solve<Machine>));
  m.impl("kkt_solve", TORCH_FN(kkt_solve<Machine>));
  m.impl("parameter_gradients", TORCH_FN(parameter_gradients<Machine>));
  m.impl("kkt_gradients", TORCH_FN(kkt_gradients<Machine>));
  m.impl("lpgd", TORCH_FN(lpgd<Machine>));
}

}  // namespace torchqp::torch_ops
