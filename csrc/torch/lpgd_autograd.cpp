// The LPGD derivative of solve, as the operator solve_lpgd, for plain eager calls in Python: a backward
// pass in Python takes as long as a hundred small problems. Formulas: core/lpgd.hpp and
// python/torchqp/_lpgd.py, which serves torch.compile and torch.func.

#include <torch/library.h>

#include "torch/args.hpp"
#include "torch/backward_watch.hpp"
#include "torch/solved.hpp"

namespace torchqp::torch_ops {
namespace {

using LpgdSchema = LpgdOutputs(const Tensor&, const Tensor&, const OptionalTensor&,
                               const OptionalTensor&, const OptionalTensor&, const OptionalTensor&,
                               const OptionalTensor&, const OptionalTensor&, const OptionalTensor&,
                               const Tensor&, const Tensor&, const Tensor&, const Tensor&,
                               const Tensor&, const Tensor&, const OptionalTensor&,
                               const OptionalTensor&, const OptionalTensor&, const OptionalTensor&,
                               const OptionalTensor&, bool, double, bool, int64_t, double, double,
                               double, int64_t, bool);
using GradientsSchema = Gradients(const Tensor&, const Tensor&, const Tensor&, const Tensor&,
                                  const Tensor&, const Tensor&, const OptionalTensor&,
                                  const OptionalTensor&, const Tensor&, const Tensor&,
                                  std::array<bool, 8>, std::array<bool, 3>, bool);

/// As in the schema of solve.
struct LpgdOptions {
  double tau;
  bool relative;
  int64_t side;
  double rho;

  explicit LpgdOptions(at::ArrayRef<double> options) {
    TORCH_CHECK_VALUE(options.size() == 4,
                      "solve_lpgd: expected backward_options of 4 numbers, got ", options.size());
    tau = options[0], relative = options[1] != 0;
    side = static_cast<int64_t>(options[2]), rho = options[3];
    check_lpgd_options(tau, side, rho);
  }
};

struct KeptLpgd : Kept {
  LpgdOptions options;
  double eps_abs, eps_rel;
  int64_t max_iter;
  bool polish;

  KeptLpgd(Kept kept, const LpgdOptions& lpgd, const Fixed& fixed)
      : Kept(std::move(kept)),
        options(lpgd),
        eps_abs(fixed.eps_abs),
        eps_rel(fixed.eps_rel),
        max_iter(fixed.max_iter),
        polish(fixed.polish) {}
};

/// The solution as a function of all parameters. Its gradients have no derivative: a second one raises,
/// from the operator lpgd.
struct LpgdSolve : torch::autograd::Function<LpgdSolve> {
  /// Returns the outputs of the operator from z to residuals.
  static variable_list forward(AutogradContext* ctx, const Tensor& Q, const Tensor& q,
                               const OptionalTensor& G, const OptionalTensor& h_lower,
                               const OptionalTensor& h, const OptionalTensor& A,
                               const OptionalTensor& b, const OptionalTensor& lb,
                               const OptionalTensor& ub, const Fixed& fixed,
                               const LpgdOptions& options) {
    const auto [z, nu, lam, lam_lb, lam_ub, slack, status, iterations, residuals, active, factor] =
        call_solve(Q, q, G, h_lower, h, A, b, lb, ub, fixed, /*save_factor=*/false);
    const auto or_none = [](const OptionalTensor& tensor) { return tensor.value_or(Tensor()); };
    ctx->set_materialize_grads(false);
    ctx->mark_non_differentiable({status, iterations, residuals});
    ctx->save_for_backward({Q, or_none(G), or_none(A), z, nu, lam, active, status, Tensor(), q,
                            or_none(h_lower), or_none(h), or_none(b), or_none(lb), or_none(ub),
                            lam_lb, lam_ub});
    ctx->saved_data["kept"] = c10::IValue::make_capsule(c10::make_intrusive<KeptLpgd>(
        Kept(fixed.diagonal, Q, q, {&G, &h_lower, &h, &A, &b, &lb, &ub}), options, fixed));
    return {z, nu, lam, lam_lb, lam_ub, slack, status, iterations, residuals};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& g) {
    const Solved s(ctx);
    const c10::impl::ExcludeDispatchKeyGuard full_precision(c10::autocast_dispatch_keyset);
    variable_list grads(kParameters + 2);  // the last are those of what is held constant
    std::array<OptionalTensor, 5> cotangents;
    Tensor g_z = g[0];
    const Tensor g_slack = s.through_slack(g[5], g_z);
    bool any = false;
    for (size_t i = 0; i < cotangents.size(); ++i) {
      const Tensor& cotangent = i == 0 ? g_z : g[i];
      // What a problem does not have, has no entries.
      if (!cotangent.defined() || cotangent.size(-1) == 0) continue;
      cotangents[i] = cotangent;
      any = true;
    }
    if (!any) return grads;
    // With create_graph, or for many cotangents, from operators that torch follows.
    const bool nested = at::GradMode::is_enabled() || transforms();
    const auto [d_z, z, d_nu, nu, d_lam, lam, grad_h_lower, grad_h, grad_lb, grad_ub, info] =
        difference(s, static_cast<const KeptLpgd&>(*ctx->saved_data["kept"].toCapsule()),
                   cotangents, nested);
    if (!transforms()) record_backward(info);

    const auto put = [&](size_t i, const Tensor& grad) {
      if (s.wants[i]) grads[i] = at::sum_to(grad, s.shape(i));
    };
    put(kq, d_z), put(kHLower, grad_h_lower), put(kH, grad_h), put(kLb, grad_lb);
    put(kUb, grad_ub);
    if (s.wants[kB]) put(kB, -d_nu);
    if (!nested) write_matrices(s, {z, nu, lam, d_z, d_nu, d_lam}, grads);
    const auto open = [&](size_t i) { return s.wants[i] && !grads[i].defined(); };
    if (open(kQ)) grads[kQ] = gradient_of_Q(d_z, z, s.shape(kQ), s.diagonal);
    if (open(kG)) grads[kG] = gradient_of_rows(d_lam, z, lam, d_z, s.shape(kG));
    if (open(kA)) grads[kA] = gradient_of_rows(d_nu, z, nu, d_z, s.shape(kA));
    if (g_slack.defined()) add_slack(s, g_slack, grads);
    return grads;
  }

 private:
  static LpgdOutputs difference(const Solved& s, const KeptLpgd& kept,
                                const std::array<OptionalTensor, 5>& g, bool nested) {
    static const auto op = operator_named<LpgdSchema>("torchqp::lpgd");
    const Tensor &q = s.further(0), &lam_lb = s.further(6), &lam_ub = s.further(7);
    const auto limit = [&](size_t i) { return optional(s.further(i)); };
    std::optional<at::AutoDispatchBelowADInplaceOrView> guard;
    if (!nested) guard.emplace();
    return op.call(s.Q, q, optional(s.G), limit(1), limit(2), optional(s.A), limit(3), limit(4),
                   limit(5), s.z, s.nu, s.lam, lam_lb, lam_ub, s.status, g[0], g[1], g[2], g[3],
                   g[4], s.diagonal, kept.options.tau, kept.options.relative, kept.options.side,
                   kept.options.rho, kept.eps_abs, kept.eps_rel, kept.max_iter, kept.polish);
  }

  /// Those of Q, G and A that one pass over the members forms.
  static void write_matrices(const Solved& s, const std::array<Tensor, 6>& d,
                             variable_list& grads) {
    std::array<bool, 8> formed = {};
    for (const size_t j : kMatrixPlaces) formed[j] = s.is_written(kWrittenOrder[j]);
    if (std::none_of(formed.begin(), formed.end(), [](bool wanted) { return wanted; })) return;
    static const auto op = operator_named<GradientsSchema>("torchqp::parameter_gradients");
    const at::AutoDispatchBelowADInplaceOrView guard;
    const auto [Q, G, h_lower, h, A, b, lb, ub] =
        op.call(d[0], d[1], d[2], d[3], d[4], d[5], std::nullopt, std::nullopt, s.active, s.status,
                formed, s.summed(), s.diagonal);
    const std::array<const Tensor*, 3> written = {&Q, &G, &A};
    for (size_t k = 0; k < written.size(); ++k) {
      const size_t j = kMatrixPlaces[k], i = kWrittenOrder[j];
      if (formed[j]) grads[i] = s.reduced(i, *written[k]);
    }
  }

  /// What the slack's cotangent adds to the gradients of G and h: -g z' and g.
  static void add_slack(const Solved& s, const Tensor& g_slack, variable_list& grads) {
    if (s.wants[kG]) {
      const Tensor z = zero_unless(s.solved(), s.z);
      grads[kG] = grads[kG] - sum_of_outer(g_slack, z, s.shape(kG));
    }
    if (s.wants[kH]) grads[kH] = grads[kH] + at::sum_to(g_slack, s.shape(kH));
  }
};

SolutionOutputs solve_lpgd(const Tensor& Q, const Tensor& q, const OptionalTensor& G,
                           const OptionalTensor& h_lower, const OptionalTensor& h,
                           const OptionalTensor& A, const OptionalTensor& b,
                           const OptionalTensor& lb, const OptionalTensor& ub,
                           const OptionalTensor& z0, const OptionalTensor& nu0,
                           const OptionalTensor& lam0, const OptionalTensor& lam_lb0,
                           const OptionalTensor& lam_ub0, bool diagonal,
                           at::ArrayRef<double> backward_options, double eps_abs, double eps_rel,
                           int64_t max_iter, bool polish, bool best_iterate) {
  const Fixed fixed{z0,      nu0,     lam0,     lam_lb0, lam_ub0,     diagonal,
                    eps_abs, eps_rel, max_iter, polish,  best_iterate};
  const LpgdOptions options(backward_options);
  if (!is_differentiated(Q, q, {&G, &h_lower, &h, &A, &b, &lb, &ub})) {
    return shown(call_solve(Q, q, G, h_lower, h, A, b, lb, ub, fixed, /*save_factor=*/false));
  }
  return shown(LpgdSolve::apply(Q, q, G, h_lower, h, A, b, lb, ub, fixed, options));
}

}  // namespace

TORCH_LIBRARY_IMPL(torchqp, CompositeImplicitAutograd, m) {
  m.impl("solve_lpgd", TORCH_FN(solve_lpgd));
}

}  // namespace torchqp::torch_ops
