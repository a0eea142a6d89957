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

#include <ATen/ExpandUtils.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <array>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "core/status.hpp"
#include "torch/backward_watch.hpp"
#include "torch/outer_products.hpp"

namespace torchqp {
namespace torch_ops {

using OptionalTensor = std::optional<Tensor>;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

using SolveOutputs = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor,
                                Tensor, Tensor, Tensor>;
using SolveSchema = SolveOutputs(
    const Tensor&, const Tensor&, const OptionalTensor&, const OptionalTensor&,
    const OptionalTensor&, const OptionalTensor&, const OptionalTensor&, const OptionalTensor&,
    const OptionalTensor&, const OptionalTensor&, const OptionalTensor&, const OptionalTensor&,
    const OptionalTensor&, const OptionalTensor&, bool, std::string_view, at::ArrayRef<double>,
    double, double, int64_t, bool, bool, bool, bool);
using KktOutputs = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor>;
using KktSchema = KktOutputs(const Tensor&, const OptionalTensor&, const OptionalTensor&,
                             const Tensor&, const Tensor&, const OptionalTensor&, const Tensor&,
                             const OptionalTensor&, const OptionalTensor&, const OptionalTensor&,
                             bool);
using KktGradients = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor,
                                Tensor, Tensor, Tensor, Tensor, Tensor>;
using KktGradientsSchema = KktGradients(const Tensor&, const OptionalTensor&, const OptionalTensor&,
                                        const Tensor&, const Tensor&, const OptionalTensor&,
                                        const Tensor&, const Tensor&, const Tensor&, const Tensor&,
                                        const OptionalTensor&, const OptionalTensor&,
                                        const OptionalTensor&, const OptionalTensor&,
                                        std::array<bool, 8>, std::array<bool, 3>, bool);

template <class Schema>
c10::TypedOperatorHandle<Schema> operator_named(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Schema>();
}

/// The differentiable arguments of solve, in the order of its schema.
enum : size_t { kQ, kq, kG, kHLower, kH, kA, kB, kLb, kUb, kParameters };

/// What a derivative holds constant.
struct Fixed {
  OptionalTensor z0 = {}, nu0 = {}, lam0 = {}, lam_lb0 = {}, lam_ub0 = {};
  bool diagonal;
  double eps_abs, eps_rel;
  int64_t max_iter;
  bool polish, best_iterate;
};

SolveOutputs call_solve(const Tensor& Q, const Tensor& q, const OptionalTensor& G,
                        const OptionalTensor& h_lower, const OptionalTensor& h,
                        const OptionalTensor& A, const OptionalTensor& b, const OptionalTensor& lb,
                        const OptionalTensor& ub, const Fixed& fixed, bool save_factor) {
  static const auto op = operator_named<SolveSchema>("torchqp::solve");
  const at::AutoDispatchBelowADInplaceOrView guard;
  return op.call(Q, q, G, h_lower, h, A, b, lb, ub, fixed.z0, fixed.nu0, fixed.lam0, fixed.lam_lb0,
                 fixed.lam_ub0, fixed.diagonal, "kkt", {}, fixed.eps_abs, fixed.eps_rel,
                 fixed.max_iter, fixed.polish, fixed.best_iterate, save_factor,
                 /*near_start=*/true);
}

/// An undefined tensor is how autograd says "absent".
OptionalTensor optional(const Tensor& tensor) {
  return tensor.defined() ? OptionalTensor(tensor) : std::nullopt;
}

Tensor zero_unless(const Tensor& condition, const Tensor& value) {
  return at::where(condition, value, at::Scalar(0));
}

Tensor plus(const Tensor& a, const Tensor& b) {
  if (!a.defined()) return b;
  return b.defined() ? a + b : a;
}

/// Whether a transform of torch.func is at work, as when a backward pass takes many cotangents at
/// once.
bool transforms() {
  return c10::impl::tls_is_dispatch_key_included(c10::DispatchKey::FuncTorchDynamicLayerFrontMode);
}

/// Which gradients the caller wants, asked in the order of the arguments; absent ones have no edge.
class Wanted {
 public:
  explicit Wanted(AutogradContext* ctx) : ctx_(ctx) {}
  bool next(bool present = true) { return present && ctx_->needs_input_grad(edge_++); }

 private:
  AutogradContext* ctx_;
  size_t edge_ = 0;
};

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

/// What the derivative of a solve keeps beside its tensors.
struct Kept : torch::CustomClassHolder {
  bool diagonal;
  std::array<std::optional<c10::DimVector>, kParameters> shapes;  // of the parameters
};

/// One solve as its derivative reads it.
class Solved {
 public:
  explicit Solved(AutogradContext* ctx)
      : saved_(ctx->get_saved_variables()),
        kept_(ctx->saved_data["kept"].toCapsule()),
        diagonal(kept().diagonal) {
    Wanted wanted(ctx);
    for (size_t i = 0; i < kParameters; ++i) wants[i] = wanted.next(present(i));
  }

  bool present(size_t i) const { return kept().shapes[i].has_value(); }
  at::IntArrayRef shape(size_t i) const { return *kept().shapes[i]; }
  /// Whether every member has a parameter of its own.
  bool is_batched(size_t i) const { return leading(i) == z.sizes().slice(0, z.dim() - 1); }
  /// Whether all members have one matrix.
  bool is_summed(size_t i) const {
    return present(i) && core(i) == 2 && !is_batched(i) && c10::multiply_integers(leading(i)) == 1;
  }
  /// Where a member was solved, [*, 1].
  Tensor solved() const {
    return status.le(static_cast<int>(Status::kSolvedInaccurate)).unsqueeze(-1);
  }
  Tensor active_rows() const { return active.narrow(-1, 0, lam.size(-1)); }
  /// Undefined without bounds.
  Tensor active_bounds() const {
    const int64_t m = lam.size(-1), n = z.size(-1);
    return active.size(-1) == m ? Tensor() : active.narrow(-1, m, n);
  }

 private:
  size_t core(size_t i) const { return i == kG || i == kA || (i == kQ && !diagonal) ? 2 : 1; }
  at::IntArrayRef leading(size_t i) const { return shape(i).slice(0, shape(i).size() - core(i)); }
  const Kept& kept() const { return static_cast<const Kept&>(*kept_); }

  variable_list saved_;
  c10::intrusive_ptr<torch::CustomClassHolder> kept_;

 public:
  const Tensor &Q = saved_[0], &G = saved_[1], &A = saved_[2], &z = saved_[3], &nu = saved_[4],
               &lam = saved_[5], &active = saved_[6], &status = saved_[7], &factor = saved_[8];
  const bool diagonal;
  std::array<bool, kParameters> wants;
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
    auto kept = c10::make_intrusive<Kept>();
    kept->diagonal = fixed.diagonal;
    const OptionalTensor* optional[] = {&G, &h_lower, &h, &A, &b, &lb, &ub};
    kept->shapes[kQ] = Q.sizes();
    kept->shapes[kq] = q.sizes();
    for (size_t i = kG; i < kParameters; ++i) {
      const OptionalTensor& given = *optional[i - kG];
      if (given.has_value()) kept->shapes[i] = given->sizes();
    }
    ctx->saved_data["kept"] = c10::IValue::make_capsule(std::move(kept));
    return {z, nu, lam, lam_lb, lam_ub, slack, status, iterations, residuals};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& g) {
    const Solved s(ctx);
    const c10::impl::ExcludeDispatchKeyGuard full_precision(c10::autocast_dispatch_keyset);
    const Tensor bounds = s.active_bounds();
    Tensor g_z = g[0], g_slack, g_bound;
    if (g[5].defined() && s.present(kH)) {
      g_slack = zero_unless(s.solved(), g[5]);
      g_z = plus(g_z, -product(s.G.mT(), g_slack.unsqueeze(-1)).squeeze(-1));
    }
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
    static constexpr std::array<size_t, 8> kOrder = {kQ, kG, kHLower, kH, kA, kB, kLb, kUb};
    std::array<bool, 8> formed;
    bool any = false;
    for (size_t j = 0; j < kOrder.size(); ++j) {
      const size_t i = kOrder[j];
      const bool matrix = i == kQ || i == kG || i == kA;
      formed[j] = s.wants[i] && (!matrix || s.is_batched(i) || s.is_summed(i));
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
                s.nu, s.lam, g_z, g_nu, g_lam, g_bound, g_slack, formed,
                {s.is_summed(kQ), s.is_summed(kG), s.is_summed(kA)}, s.diagonal);
    Tensor* const written[] = {&Q, &G, &h_lower, &h, &A, &b, &lb, &ub};
    for (size_t j = 0; j < kOrder.size(); ++j) {
      const size_t i = kOrder[j];
      if (!formed[j]) continue;
      grads[i] = s.is_summed(i) ? written[j]->view(s.shape(i))
                                : at::sum_to(std::move(*written[j]), s.shape(i));
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
      // A failed member holds NaN, and NaN * 0 is NaN: its values are replaced before any product.
      const Tensor solved = s.solved(), z = zero_unless(solved, s.z);
      if (open(kQ)) grads[kQ] = gradient_of_Q(d_z, z, s.shape(kQ), s.diagonal);
      if (open(kG)) {
        const Tensor d_rows = g_slack.defined() ? d_lam - g_slack : d_lam;
        const Tensor lam = zero_unless(solved, s.lam);
        grads[kG] = gradient_of_rows(d_rows, z, lam, d_z, s.shape(kG));
      }
      if (open(kA))
        grads[kA] = gradient_of_rows(d_nu, z, zero_unless(solved, s.nu), d_z, s.shape(kA));
    }
    if (open(kq)) put(kq, d_z);
    if (open(kHLower)) put(kHLower, zero_unless(s.active_rows().lt(0), -d_lam));
    if (open(kH)) put(kH, plus(zero_unless(s.active_rows().gt(0), -d_lam), g_slack));
    if (open(kB)) put(kB, -d_nu);
    if (open(kLb)) put(kLb, zero_unless(s.active_bounds().lt(0), -d_bound));
    if (open(kUb)) put(kUb, zero_unless(s.active_bounds().gt(0), -d_bound));
  }
};

using ExactOutputs =
    std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

ExactOutputs exact(const Tensor& Q, const Tensor& q, const OptionalTensor& G,
                   const OptionalTensor& h_lower, const OptionalTensor& h, const OptionalTensor& A,
                   const OptionalTensor& b, const OptionalTensor& lb, const OptionalTensor& ub,
                   const Fixed& fixed) {
  const auto requires_grad = [](const OptionalTensor& tensor) {
    return tensor && tensor->requires_grad();
  };
  const bool differentiable = at::GradMode::is_enabled() &&
                              (Q.requires_grad() || q.requires_grad() || requires_grad(G) ||
                               requires_grad(h_lower) || requires_grad(h) || requires_grad(A) ||
                               requires_grad(b) || requires_grad(lb) || requires_grad(ub));
  if (!differentiable) {
    auto [z, nu, lam, lam_lb, lam_ub, slack, status, iterations, residuals, active, factor] =
        call_solve(Q, q, G, h_lower, h, A, b, lb, ub, fixed, /*save_factor=*/false);
    return {z, nu, lam, lam_lb, lam_ub, slack, status, iterations, residuals};
  }
  variable_list out = ExactSolve::apply(Q, q, G, h_lower, h, A, b, lb, ub, fixed);
  return {out[0], out[1], out[2], out[3], out[4], out[5], out[6], out[7], out[8]};
}

ExactOutputs solve_exact(const Tensor& Q, const Tensor& q, const OptionalTensor& G,
                         const OptionalTensor& h_lower, const OptionalTensor& h,
                         const OptionalTensor& A, const OptionalTensor& b, const OptionalTensor& lb,
                         const OptionalTensor& ub, const OptionalTensor& z0,
                         const OptionalTensor& nu0, const OptionalTensor& lam0,
                         const OptionalTensor& lam_lb0, const OptionalTensor& lam_ub0,
                         bool diagonal, double eps_abs, double eps_rel, int64_t max_iter,
                         bool polish, bool best_iterate) {
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
