// The exact derivative of solve: two autograd Functions over the operators, for LibTorch programs and,
// as the operator solve_exact, for plain eager calls in Python.
//
// With d = kkt_solve(g), the gradients of solve are those of the Lagrangian's mixed derivatives
// (OptNet, eq. 7 and 8, in the symmetric form on the active set):
//
//   grad_q = d_z                    grad_b       = -d_nu
//   grad_Q = sym(d_z z')            grad_h       = -d_lam on upper sides
//   grad_A = d_nu z' + nu d_z'      grad_h_lower = -d_lam on lower sides
//   grad_G = d_lam z' + lam d_z'    grad_ub, grad_lb likewise from d_bound
//
// The cotangent g_s of the slack s = h - Gz enters as -G' g_s in that of z, as -g_s z' in grad_G and
// as itself in grad_h.
//
// kkt_solve is linear and self-adjoint in g, so its own derivative is kkt_solve again, and the pair
// has all orders.

#include "torchqp/autograd.h"

#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include "torch/backward_watch.hpp"
#include "torch/solved.hpp"

namespace torchqp {
namespace torch_ops {

using KktSchema = KktOutputs(const Tensor&, const OptionalTensor&, const OptionalTensor&,
                             const Tensor&, const Tensor&, const OptionalTensor&, const Tensor&,
                             const OptionalTensor&, const OptionalTensor&, const OptionalTensor&,
                             bool);
using KktGradientsSchema = KktGradients(const Tensor&, const OptionalTensor&, const OptionalTensor&,
                                        const Tensor&, const Tensor&, const OptionalTensor&,
                                        const Tensor&, const Tensor&, const Tensor&, const Tensor&,
                                        const OptionalTensor&, const OptionalTensor&,
                                        const OptionalTensor&, const OptionalTensor&,
                                        std::array<bool, 8>, std::array<bool, 3>, bool);

/// d = -K^-1 g as a function of Q, G, A and g.
struct KktFunction : torch::autograd::Function<KktFunction> {
  /// Returns the outputs of the operator.
  static variable_list forward(AutogradContext* ctx, const Tensor& Q, const OptionalTensor& G,
                               const OptionalTensor& A, const OptionalTensor& g_z,
                               const OptionalTensor& g_nu, const OptionalTensor& g_lam,
                               const OptionalTensor& g_bound, const OptionalTensor& active,
                               const OptionalTensor& status, const OptionalTensor& factor,
                               bool diagonal) {
    const auto [d_z, d_nu, d_lam, d_bound, info] =
        call(Q, G, A, *active, *status, factor, *g_z, g_nu, g_lam, g_bound, diagonal);
    ctx->set_materialize_grads(false);
    ctx->mark_non_differentiable({info});
    ctx->save_for_backward({Q, G.value_or(Tensor()), A.value_or(Tensor()), *active, *status,
                            factor.value_or(Tensor()), d_z, d_nu, d_lam});
    ctx->saved_data["diagonal"] = diagonal;
    ctx->saved_data["given"] =
        std::vector<bool>{g_nu.has_value(), g_lam.has_value(), g_bound.has_value()};
    return {d_z, d_nu, d_lam, d_bound, info};
  }

  /// With u = kkt_solve(w): d'd(w) = u'(dg + dK d), hence grad_g = u and the symmetric products
  /// below.
  static variable_list backward(AutogradContext* ctx, const variable_list& w) {
    const variable_list saved = ctx->get_saved_variables();
    const Tensor &Q = saved[0], &G = saved[1], &A = saved[2], &d_z = saved[6], &d_nu = saved[7],
                 &d_lam = saved[8];
    const bool diagonal = ctx->saved_data["diagonal"].toBool();
    const auto given = ctx->saved_data["given"].toBoolList();
    const c10::impl::ExcludeDispatchKeyGuard full_precision(c10::autocast_dispatch_keyset);
    const Tensor w_z = w[0].defined() ? w[0] : at::zeros(d_z.sizes(), d_z.options());
    const variable_list u = apply(Q, optional(G), optional(A), OptionalTensor(w_z), optional(w[1]),
                                  optional(w[2]), optional(w[3]), OptionalTensor(saved[3]),
                                  OptionalTensor(saved[4]), optional(saved[5]), diagonal);
    Wanted wanted(ctx);
    variable_list grads(11);
    if (wanted.next()) grads[0] = gradient_of_Q(u[0], d_z, Q.sizes(), diagonal);
    if (wanted.next(G.defined())) grads[1] = gradient_of_rows(u[2], d_z, d_lam, u[0], G.sizes());
    if (wanted.next(A.defined())) grads[2] = gradient_of_rows(u[1], d_z, d_nu, u[0], A.sizes());
    if (wanted.next()) grads[3] = u[0];
    for (size_t i = 0; i < 3; ++i) {
      if (wanted.next(given[i])) grads[4 + i] = u[1 + i];
    }
    return grads;
  }

  /// The operator alone.
  static KktOutputs call(const Tensor& Q, const OptionalTensor& G, const OptionalTensor& A,
                         const Tensor& active, const Tensor& status, const OptionalTensor& factor,
                         const Tensor& g_z, const OptionalTensor& g_nu, const OptionalTensor& g_lam,
                         const OptionalTensor& g_bound, bool diagonal) {
    static const auto op = operator_named<KktSchema>("torchqp::kkt_solve");
    const at::AutoDispatchBelowADInplaceOrView guard;
    return op.call(Q, G, A, active, status, factor, g_z, g_nu, g_lam, g_bound, diagonal);
  }
};

/// The solution as a function of all parameters.
struct ExactSolve : torch::autograd::Function<ExactSolve> {
  /// Returns the outputs of the operator from z to residuals.
  static variable_list forward(AutogradContext* ctx, const Tensor& Q, const Tensor& q,
                               const OptionalTensor& G, const OptionalTensor& h_lower,
                               const OptionalTensor& h, const OptionalTensor& A,
                               const OptionalTensor& b, const OptionalTensor& lb,
                               const OptionalTensor& ub, const Fixed& fixed) {
    const auto [z, nu, lam, lam_lb, lam_ub, slack, status, iterations, residuals, active, factor] =
        call_solve(Q, q, G, h_lower, h, A, b, lb, ub, fixed, /*save_factor=*/true);
    ctx->set_materialize_grads(false);
    ctx->mark_non_differentiable({status, iterations, residuals});
    ctx->save_for_backward(
        {Q, G.value_or(Tensor()), A.value_or(Tensor()), z, nu, lam, active, status, factor});
    ctx->saved_data["kept"] = c10::IValue::make_capsule(c10::make_intrusive<Kept>(
        fixed.diagonal, Q, q,
        std::initializer_list<const OptionalTensor*>{&G, &h_lower, &h, &A, &b, &lb, &ub}));
    return {z, nu, lam, lam_lb, lam_ub, slack, status, iterations, residuals};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& g) {
    const Solved s(ctx);
    const c10::impl::ExcludeDispatchKeyGuard full_precision(c10::autocast_dispatch_keyset);
    const Tensor bounds = s.active_bounds();
    Tensor g_z = g[0], g_bound;
    const Tensor g_slack = s.through_slack(g[5], g_z);
    if (!g_z.defined()) g_z = at::zeros(s.z.sizes(), s.z.options());
    if (g[3].defined() && s.present(kLb)) g_bound = zero_unless(bounds.lt(0), -g[3]);
    if (g[4].defined() && s.present(kUb)) g_bound = plus(g_bound, zero_unless(bounds.gt(0), g[4]));
    variable_list grads(kParameters + 1);  // the last is that of `fixed`
    // With create_graph, or for many cotangents, from operators that have a derivative themselves.
    const bool nested = at::GradMode::is_enabled() || transforms();
    const variable_list d =
        nested ? KktFunction::apply(s.Q, optional(s.G), optional(s.A), OptionalTensor(g_z),
                                    optional(g[1]), optional(g[2]), optional(g_bound),
                                    OptionalTensor(s.active), OptionalTensor(s.status),
                                    OptionalTensor(s.factor), s.diagonal)
               : write(s, g_z, optional(g[1]), optional(g[2]), optional(g_bound), optional(g_slack),
                       grads);
    if (!transforms()) record_backward(d[4]);
    multiply(s, d, g_slack, grads);
    return grads;
  }

 private:
  /// The adjoint, and from the same pass over the members all gradients but q's and those of matrices
  /// that some of the members share, for which it would be one matrix a member.
  static variable_list write(const Solved& s, const Tensor& g_z, const OptionalTensor& g_nu,
                             const OptionalTensor& g_lam, const OptionalTensor& g_bound,
                             const OptionalTensor& g_slack, variable_list& grads) {
    std::array<bool, 8> formed;
    bool any = false;
    for (size_t j = 0; j < formed.size(); ++j) {
      formed[j] = s.is_written(kWrittenOrder[j]);
      any = any || formed[j];
    }
    if (!any) {
      auto [d_z, d_nu, d_lam, d_bound, info] =
          KktFunction::call(s.Q, optional(s.G), optional(s.A), s.active, s.status,
                            optional(s.factor), g_z, g_nu, g_lam, g_bound, s.diagonal);
      return {std::move(d_z), std::move(d_nu), std::move(d_lam), std::move(d_bound),
              std::move(info)};
    }
    static const auto op = operator_named<KktGradientsSchema>("torchqp::kkt_gradients");
    const at::AutoDispatchBelowADInplaceOrView guard;
    auto [d_z, d_nu, d_lam, d_bound, info, Q, G, h_lower, h, A, b, lb, ub] =
        op.call(s.Q, optional(s.G), optional(s.A), s.active, s.status, optional(s.factor), s.z,
                s.nu, s.lam, g_z, g_nu, g_lam, g_bound, g_slack, formed, s.summed(), s.diagonal);
    Tensor* const written[] = {&Q, &G, &h_lower, &h, &A, &b, &lb, &ub};
    for (size_t j = 0; j < formed.size(); ++j) {
      const size_t i = kWrittenOrder[j];
      if (formed[j]) grads[i] = s.reduced(i, std::move(*written[j]));
    }
    return {std::move(d_z), std::move(d_nu), std::move(d_lam), std::move(d_bound), std::move(info)};
  }

  /// From differentiable products: those that are wanted and not there yet.
  static void multiply(const Solved& s, const variable_list& d, const Tensor& g_slack,
                       variable_list& grads) {
    const Tensor &d_z = d[0], &d_nu = d[1], &d_lam = d[2], &d_bound = d[3];
    const auto open = [&](size_t i) { return s.wants[i] && !grads[i].defined(); };
    const auto put = [&](size_t i, const Tensor& grad) { grads[i] = at::sum_to(grad, s.shape(i)); };
    if (open(kQ) || open(kG) || open(kA)) {
      const MatrixProducts products(s.solved(), s.z, s.nu, s.lam, d_z, d_nu, d_lam, g_slack);
      if (open(kQ)) grads[kQ] = products.of_Q(s.shape(kQ), s.diagonal);
      if (open(kG)) grads[kG] = products.of_G(s.shape(kG));
      if (open(kA)) grads[kA] = products.of_A(s.shape(kA));
    }
    if (open(kq)) put(kq, d_z);
    if (open(kHLower)) put(kHLower, zero_unless(s.active_rows().lt(0), -d_lam));
    if (open(kH)) put(kH, plus(zero_unless(s.active_rows().gt(0), -d_lam), g_slack));
    if (open(kB)) put(kB, -d_nu);
    if (open(kLb)) put(kLb, zero_unless(s.active_bounds().lt(0), -d_bound));
    if (open(kUb)) put(kUb, zero_unless(s.active_bounds().gt(0), -d_bound));
  }
};

SolutionOutputs exact(const Tensor& Q, const Tensor& q, const OptionalTensor& G,
                      const OptionalTensor& h_lower, const OptionalTensor& h,
                      const OptionalTensor& A, const OptionalTensor& b, const OptionalTensor& lb,
                      const OptionalTensor& ub, const Fixed& fixed) {
  if (!is_differentiated(Q, q, {&G, &h_lower, &h, &A, &b, &lb, &ub})) {
    return shown(call_solve(Q, q, G, h_lower, h, A, b, lb, ub, fixed, /*save_factor=*/false));
  }
  return shown(ExactSolve::apply(Q, q, G, h_lower, h, A, b, lb, ub, fixed));
}

SolutionOutputs solve_exact(const Tensor& Q, const Tensor& q, const OptionalTensor& G,
                            const OptionalTensor& h_lower, const OptionalTensor& h,
                            const OptionalTensor& A, const OptionalTensor& b,
                            const OptionalTensor& lb, const OptionalTensor& ub,
                            const OptionalTensor& z0, const OptionalTensor& nu0,
                            const OptionalTensor& lam0, const OptionalTensor& lam_lb0,
                            const OptionalTensor& lam_ub0, bool diagonal, double eps_abs,
                            double eps_rel, int64_t max_iter, bool polish, bool best_iterate) {
  return exact(Q, q, G, h_lower, h, A, b, lb, ub,
               {z0, nu0, lam0, lam_lb0, lam_ub0, diagonal, eps_abs, eps_rel, max_iter, polish,
                best_iterate});
}

TORCH_LIBRARY_IMPL(torchqp, CompositeImplicitAutograd, m) {
  m.impl("solve_exact", TORCH_FN(solve_exact));
}

}  // namespace torch_ops

Solution solve_qp(const at::Tensor& Q, const at::Tensor& q, const std::optional<at::Tensor>& G,
                  const std::optional<at::Tensor>& h, const std::optional<at::Tensor>& A,
                  const std::optional<at::Tensor>& b, const std::optional<at::Tensor>& lb,
                  const std::optional<at::Tensor>& ub, const std::optional<at::Tensor>& h_lower,
                  const std::optional<Settings>& settings, bool diagonal) {
  const bool single = Q.defined() && Q.scalar_type() == at::kFloat;
  const Settings s =
      settings.value_or(single ? default_settings<float>() : default_settings<double>());
  auto [z, nu, lam, lam_lb, lam_ub, slack, status, iterations, residuals] =
      torch_ops::exact(Q, q, G, h_lower, h, A, b, lb, ub,
                       {.diagonal = diagonal,
                        .eps_abs = s.eps_abs,
                        .eps_rel = s.eps_rel,
                        .max_iter = s.max_iter,
                        .polish = s.polish,
                        .best_iterate = s.best_iterate});
  return {z, nu, lam, lam_lb, lam_ub, slack, status, iterations, residuals};
}

}  // namespace torchqp
