// The derivative of solve for LibTorch programs: two autograd Functions over the two operators.
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
#include <torch/csrc/autograd/custom_function.h>

#include <array>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "core/status.hpp"

namespace torchqp {
namespace {

using at::Tensor;
using OptionalTensor = std::optional<Tensor>;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

using SolveOutputs = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor,
                                Tensor, Tensor, Tensor>;
using SolveSchema = SolveOutputs(const Tensor&, const Tensor&, const OptionalTensor&,
                                 const OptionalTensor&, const OptionalTensor&,
                                 const OptionalTensor&, const OptionalTensor&,
                                 const OptionalTensor&, const OptionalTensor&,
                                 const OptionalTensor&, const OptionalTensor&,
                                 const OptionalTensor&, const OptionalTensor&,
                                 const OptionalTensor&, bool, std::string_view,
                                 at::ArrayRef<double>, double, double, int64_t, bool, bool, bool);
using KktSchema = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor>(
    const Tensor&, const OptionalTensor&, const OptionalTensor&, const Tensor&, const Tensor&,
    const OptionalTensor&, const Tensor&, const OptionalTensor&, const OptionalTensor&,
    const OptionalTensor&, bool);
using Gradients = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;
using GradientsSchema = Gradients(const Tensor&, const Tensor&, const Tensor&, const Tensor&,
                                  const Tensor&, const Tensor&, const OptionalTensor&,
                                  const OptionalTensor&, const Tensor&, const Tensor&,
                                  std::array<bool, 8>, bool);

/// The differentiable arguments of solve, in the order of its schema.
enum : size_t { kQ, kq, kG, kHLower, kH, kA, kB, kLb, kUb };
constexpr std::array<const char*, 9> kNames = {"Q", "q", "G", "h_lower", "h", "A", "b", "lb", "ub"};

struct Arguments {
  Tensor Q, q;
  OptionalTensor G, h_lower, h, A, b, lb, ub;
  bool diagonal;
};

SolveOutputs call_solve(const Arguments& a, const Settings& settings, bool save_factor) {
  static const auto op =
      c10::Dispatcher::singleton().findSchemaOrThrow("torchqp::solve", "").typed<SolveSchema>();
  const OptionalTensor none;
  return op.call(a.Q, a.q, a.G, a.h_lower, a.h, a.A, a.b, a.lb, a.ub, none, none, none, none, none,
                 a.diagonal, "kkt", {}, settings.eps_abs, settings.eps_rel, settings.max_iter,
                 settings.polish, settings.best_iterate, save_factor);
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

/// The sum of u v' over the batch dimensions that an argument of shape `shape` shares.
///
///   u      [*, r]
///   v      [*, c]
///   shape  [.., r, c], leading dimensions that broadcast to [*]; also the result's
///
/// One matrix product whose inner dimension is the summed part of the batch.
Tensor sum_of_outer(const Tensor& u, const Tensor& v, at::IntArrayRef shape) {
  const int64_t ndim = u.dim() - 1;
  const int64_t skipped = ndim - (static_cast<int64_t>(shape.size()) - 2);
  std::vector<int64_t> kept, summed, kept_sizes;
  int64_t terms = 1;
  for (int64_t d = 0; d < ndim; ++d) {
    const bool shared = d < skipped || shape[d - skipped] != u.size(d);
    (shared ? summed : kept).push_back(d);
    if (shared) {
      terms *= u.size(d);
    } else {
      kept_sizes.push_back(u.size(d));
    }
  }
  std::vector<int64_t> order = kept;
  order.insert(order.end(), summed.begin(), summed.end());
  order.push_back(ndim);
  const auto stacked = [&](const Tensor& vectors) {
    std::vector<int64_t> sizes = kept_sizes;
    sizes.insert(sizes.end(), {terms, vectors.size(ndim)});
    return vectors.permute(order).reshape(sizes);
  };
  return at::matmul(stacked(u).mT(), stacked(v)).reshape(shape);
}

/// The gradient of Q: the symmetric part of the sum of u v', or the sum of u * v for a diagonal.
Tensor gradient_of_Q(const Tensor& u, const Tensor& v, at::IntArrayRef shape, bool diagonal) {
  if (diagonal) return at::sum_to(u * v, shape);
  const Tensor outer = sum_of_outer(u, v, shape);
  return (outer + outer.mT()) / 2;
}

/// The gradient of G or A, whose rows have the multipliers y: the sum of d_y z' + y d_z'.
Tensor gradient_of_rows(const Tensor& d_y, const Tensor& z, const Tensor& y, const Tensor& d_z,
                        at::IntArrayRef shape) {
  return sum_of_outer(d_y, z, shape) + sum_of_outer(y, d_z, shape);
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
  static variable_list forward(AutogradContext* ctx, const Tensor& Q, const OptionalTensor& G,
                               const OptionalTensor& A, const OptionalTensor& g_z,
                               const OptionalTensor& g_nu, const OptionalTensor& g_lam,
                               const OptionalTensor& g_bound, const OptionalTensor& active,
                               const OptionalTensor& status, const OptionalTensor& factor,
                               bool diagonal) {
    static const auto op =
        c10::Dispatcher::singleton().findSchemaOrThrow("torchqp::kkt_solve", "").typed<KktSchema>();
    const at::AutoDispatchBelowADInplaceOrView guard;
    const auto out =
        op.call(Q, G, A, *active, *status, factor, *g_z, g_nu, g_lam, g_bound, diagonal);
    const auto& [d_z, d_nu, d_lam, d_bound, info] = out;
    ctx->set_materialize_grads(false);
    ctx->save_for_backward({Q, G.value_or(Tensor()), A.value_or(Tensor()), *active, *status,
                            factor.value_or(Tensor()), d_z, d_nu, d_lam});
    ctx->saved_data["diagonal"] = diagonal;
    ctx->saved_data["given"] =
        std::vector<bool>{g_nu.has_value(), g_lam.has_value(), g_bound.has_value()};
    return {d_z, d_nu, d_lam, d_bound};
  }

  /// With u = kkt_solve(w): d'd(w) = u'(dg + dK d), hence grad_g = u and the symmetric products
  /// below.
  static variable_list backward(AutogradContext* ctx, const variable_list& w) {
    const variable_list saved = ctx->get_saved_variables();
    const Tensor &Q = saved[0], &G = saved[1], &A = saved[2], &d_z = saved[6], &d_nu = saved[7],
                 &d_lam = saved[8];
    const bool diagonal = ctx->saved_data["diagonal"].toBool();
    const auto given = ctx->saved_data["given"].toBoolList();
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
};

/// The solution as a function of all arguments. Returns the outputs of the operator without
/// `factor`.
struct SolveFunction : torch::autograd::Function<SolveFunction> {
  static variable_list forward(AutogradContext* ctx, const Tensor& Q, const Tensor& q,
                               const OptionalTensor& G, const OptionalTensor& h_lower,
                               const OptionalTensor& h, const OptionalTensor& A,
                               const OptionalTensor& b, const OptionalTensor& lb,
                               const OptionalTensor& ub, const Settings& settings, bool diagonal) {
    const at::AutoDispatchBelowADInplaceOrView guard;
    const auto [z, nu, lam, lam_lb, lam_ub, slack, status, iterations, residuals, active, factor] =
        call_solve({Q, q, G, h_lower, h, A, b, lb, ub, diagonal}, settings, /*save_factor=*/true);
    ctx->set_materialize_grads(false);
    ctx->mark_non_differentiable({status, iterations, residuals});
    ctx->save_for_backward(
        {Q, G.value_or(Tensor()), A.value_or(Tensor()), z, nu, lam, active, status, factor});
    ctx->saved_data["diagonal"] = diagonal;
    const OptionalTensor given[] = {Q, q, G, h_lower, h, A, b, lb, ub};
    for (size_t i = 0; i < kNames.size(); ++i) {
      if (given[i].has_value()) ctx->saved_data[kNames[i]] = given[i]->sizes().vec();
    }
    return {z, nu, lam, lam_lb, lam_ub, slack, status, iterations, residuals};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& g) {
    const variable_list saved = ctx->get_saved_variables();
    const Tensor &Q = saved[0], &G = saved[1], &A = saved[2], &active = saved[6],
                 &status = saved[7];
    const bool diagonal = ctx->saved_data["diagonal"].toBool();
    const int64_t n = saved[3].size(-1), m = saved[5].size(-1);
    const Tensor solved = status.le(static_cast<int>(Status::kSolvedInaccurate)).unsqueeze(-1);
    const bool bounds = active.size(-1) != m;
    const Tensor sides = bounds ? active.narrow(-1, m, n) : Tensor();

    Tensor g_z = g[0], g_slack, g_bound;
    if (g[5].defined() && ctx->saved_data.count("h") != 0) {
      g_slack = zero_unless(solved, g[5]);
      g_z = plus(g_z, -at::matmul(G.mT(), g_slack.unsqueeze(-1)).squeeze(-1));
    }
    if (!g_z.defined()) g_z = at::zeros(saved[3].sizes(), saved[3].options());
    if (g[3].defined() && g[3].size(-1) != 0) g_bound = zero_unless(sides.lt(0), -g[3]);
    if (g[4].defined() && g[4].size(-1) != 0)
      g_bound = plus(g_bound, zero_unless(sides.gt(0), g[4]));
    const variable_list d =
        KktFunction::apply(Q, optional(G), optional(A), OptionalTensor(g_z), optional(g[1]),
                           optional(g[2]), optional(g_bound), OptionalTensor(active),
                           OptionalTensor(status), OptionalTensor(saved[8]), diagonal);

    Wanted wanted(ctx);
    std::array<bool, 9> wants;
    for (size_t i = 0; i < wants.size(); ++i) wants[i] = wanted.next(present(ctx, i));
    // The kernel has no derivative, and no sum over a shared matrix.
    bool batched = true;
    const at::IntArrayRef batch = saved[3].sizes().slice(0, saved[3].dim() - 1);
    for (const size_t i : {kQ, kG, kA}) {
      if (!wants[i]) continue;
      const std::vector<int64_t> own = shape(ctx, i);
      batched =
          batched && at::IntArrayRef(own).slice(0, own.size() - core_of(i, diagonal)) == batch;
    }
    return at::GradMode::is_enabled() || !batched ? by_products(ctx, wants, solved, d, g_slack)
                                                  : by_kernel(ctx, wants, d, g_slack);
  }

 private:
  static size_t core_of(size_t i, bool diagonal) { return i == kQ && diagonal ? 1 : 2; }
  static bool present(AutogradContext* ctx, size_t i) {
    return ctx->saved_data.count(kNames[i]) != 0;
  }
  static std::vector<int64_t> shape(AutogradContext* ctx, size_t i) {
    return ctx->saved_data[kNames[i]].toIntVector();
  }

  /// The gradients from one pass over the members.
  static variable_list by_kernel(AutogradContext* ctx, const std::array<bool, 9>& wants,
                                 const variable_list& d, const Tensor& g_slack) {
    static const auto op = c10::Dispatcher::singleton()
                               .findSchemaOrThrow("torchqp::parameter_gradients", "")
                               .typed<GradientsSchema>();
    const variable_list saved = ctx->get_saved_variables();
    const std::array<bool, 8> asked = {wants[kQ], wants[kG], wants[kHLower], wants[kH],
                                       wants[kA], wants[kB], wants[kLb],     wants[kUb]};
    const at::AutoDispatchBelowADInplaceOrView guard;
    const auto [Q, G, h_lower, h, A, b, lb, ub] =
        op.call(saved[3], saved[4], saved[5], d[0], d[1], d[2], optional(d[3]), optional(g_slack),
                saved[6], saved[7], asked, ctx->saved_data["diagonal"].toBool());
    const Tensor formed[] = {Q, d[0], G, h_lower, h, A, b, lb, ub};
    variable_list grads(11);
    for (size_t i = 0; i < wants.size(); ++i) {
      if (wants[i]) grads[i] = at::sum_to(formed[i], shape(ctx, i));
    }
    return grads;
  }

  /// The gradients from differentiable products, for the next derivative, and those of shared
  /// matrices.
  static variable_list by_products(AutogradContext* ctx, const std::array<bool, 9>& wants,
                                   const Tensor& solved, const variable_list& d,
                                   const Tensor& g_slack) {
    const variable_list saved = ctx->get_saved_variables();
    const Tensor &active = saved[6], &d_z = d[0], &d_nu = d[1], &d_lam = d[2], &d_bound = d[3];
    const int64_t n = saved[3].size(-1), m = saved[5].size(-1);
    // A failed member holds NaN, and NaN * 0 is NaN: its values are replaced before any product.
    const Tensor z = zero_unless(solved, saved[3]), nu = zero_unless(solved, saved[4]),
                 lam = zero_unless(solved, saved[5]);
    const Tensor rows = active.narrow(-1, 0, m);
    const Tensor sides = active.size(-1) != m ? active.narrow(-1, m, n) : Tensor();
    variable_list grads(11);
    const auto reduced = [&](size_t i, const Tensor& grad) {
      grads[i] = at::sum_to(grad, shape(ctx, i));
    };
    if (wants[kQ])
      grads[kQ] = gradient_of_Q(d_z, z, shape(ctx, kQ), ctx->saved_data["diagonal"].toBool());
    if (wants[kq]) reduced(kq, d_z);
    if (wants[kG]) {
      const Tensor d_rows = g_slack.defined() ? d_lam - g_slack : d_lam;
      grads[kG] = gradient_of_rows(d_rows, z, lam, d_z, shape(ctx, kG));
    }
    if (wants[kHLower]) reduced(kHLower, zero_unless(rows.lt(0), -d_lam));
    if (wants[kH]) reduced(kH, plus(zero_unless(rows.gt(0), -d_lam), g_slack));
    if (wants[kA]) grads[kA] = gradient_of_rows(d_nu, z, nu, d_z, shape(ctx, kA));
    if (wants[kB]) reduced(kB, -d_nu);
    if (wants[kLb]) reduced(kLb, zero_unless(sides.lt(0), -d_bound));
    if (wants[kUb]) reduced(kUb, zero_unless(sides.gt(0), -d_bound));
    return grads;
  }
};

}  // namespace

Solution solve_qp(const Tensor& Q, const Tensor& q, const OptionalTensor& G,
                  const OptionalTensor& h, const OptionalTensor& A, const OptionalTensor& b,
                  const OptionalTensor& lb, const OptionalTensor& ub, const OptionalTensor& h_lower,
                  const std::optional<Settings>& settings, bool diagonal) {
  const bool single = Q.defined() && Q.scalar_type() == at::kFloat;
  const Settings chosen =
      settings.value_or(single ? default_settings<float>() : default_settings<double>());
  const auto requires_grad = [](const OptionalTensor& tensor) {
    return tensor && tensor->requires_grad();
  };
  const bool differentiable = at::GradMode::is_enabled() &&
                              (Q.requires_grad() || q.requires_grad() || requires_grad(G) ||
                               requires_grad(h_lower) || requires_grad(h) || requires_grad(A) ||
                               requires_grad(b) || requires_grad(lb) || requires_grad(ub));
  if (!differentiable) {
    const at::AutoDispatchBelowADInplaceOrView guard;
    auto [z, nu, lam, lam_lb, lam_ub, slack, status, iterations, residuals, active, factor] =
        call_solve({Q, q, G, h_lower, h, A, b, lb, ub, diagonal}, chosen, /*save_factor=*/false);
    return {z, nu, lam, lam_lb, lam_ub, slack, status, iterations, residuals};
  }
  variable_list out = SolveFunction::apply(Q, q, G, h_lower, h, A, b, lb, ub, chosen, diagonal);
  return {out[0], out[1], out[2], out[3], out[4], out[5], out[6], out[7], out[8]};
}

}  // namespace torchqp
