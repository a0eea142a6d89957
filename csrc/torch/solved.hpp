#pragma once
// What the derivatives of a solve in C++ share: the solve itself, what they keep of it, and which
// gradients are wanted.

#include <ATen/ExpandUtils.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <c10/util/DimVector.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <array>
#include <initializer_list>
#include <optional>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "core/status.hpp"
#include "torch/outer_products.hpp"
#include "torch/results.hpp"

namespace torchqp::torch_ops {

using OptionalTensor = std::optional<Tensor>;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

using SolveSchema = SolveOutputs(
    const Tensor&, const Tensor&, const OptionalTensor&, const OptionalTensor&,
    const OptionalTensor&, const OptionalTensor&, const OptionalTensor&, const OptionalTensor&,
    const OptionalTensor&, const OptionalTensor&, const OptionalTensor&, const OptionalTensor&,
    const OptionalTensor&, const OptionalTensor&, bool, std::string_view, at::ArrayRef<double>,
    double, double, int64_t, bool, bool, bool, bool);

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

/// What of a solve its caller gets.
inline SolutionOutputs shown(const variable_list& out) {
  return {out[0], out[1], out[2], out[3], out[4], out[5], out[6], out[7], out[8]};
}
inline SolutionOutputs shown(const SolveOutputs& out) {
  const auto& [z, nu, lam, lam_lb, lam_ub, slack, status, iterations, residuals, active, factor] =
      out;
  return {z, nu, lam, lam_lb, lam_ub, slack, status, iterations, residuals};
}

inline SolveOutputs call_solve(const Tensor& Q, const Tensor& q, const OptionalTensor& G,
                               const OptionalTensor& h_lower, const OptionalTensor& h,
                               const OptionalTensor& A, const OptionalTensor& b,
                               const OptionalTensor& lb, const OptionalTensor& ub,
                               const Fixed& fixed, bool save_factor) {
  static const auto op = operator_named<SolveSchema>("torchqp::solve");
  const at::AutoDispatchBelowADInplaceOrView guard;
  return op.call(Q, q, G, h_lower, h, A, b, lb, ub, fixed.z0, fixed.nu0, fixed.lam0, fixed.lam_lb0,
                 fixed.lam_ub0, fixed.diagonal, "kkt", {}, fixed.eps_abs, fixed.eps_rel,
                 fixed.max_iter, fixed.polish, fixed.best_iterate, save_factor,
                 /*near_start=*/true);
}

/// An undefined tensor is how autograd says "absent".
inline OptionalTensor optional(const Tensor& tensor) {
  return tensor.defined() ? OptionalTensor(tensor) : std::nullopt;
}

inline Tensor plus(const Tensor& a, const Tensor& b) {
  if (!a.defined()) return b;
  return b.defined() ? a + b : a;
}

/// Whether a transform of torch.func is at work, as when a backward pass takes many cotangents at
/// once.
inline bool transforms() {
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

/// Whether a derivative in these parameters may be asked for.
inline bool is_differentiated(const Tensor& Q, const Tensor& q,
                              std::initializer_list<const OptionalTensor*> others) {
  const auto requires_grad = [](const OptionalTensor* tensor) {
    return tensor->has_value() && (*tensor)->requires_grad();
  };
  return at::GradMode::is_enabled() && (Q.requires_grad() || q.requires_grad() ||
                                        std::any_of(others.begin(), others.end(), requires_grad));
}

/// What the derivative of a solve keeps beside its tensors.
struct Kept : torch::CustomClassHolder {
  bool diagonal;
  std::array<std::optional<c10::DimVector>, kParameters> shapes;  ///< of the parameters

  /// `others`: those after q.
  Kept(bool is_diagonal, const Tensor& Q, const Tensor& q,
       std::initializer_list<const OptionalTensor*> others)
      : diagonal(is_diagonal) {
    shapes[kQ] = Q.sizes();
    shapes[kq] = q.sizes();
    size_t i = kG;
    for (const OptionalTensor* given : others) {
      if (given->has_value()) shapes[i] = (*given)->sizes();
      ++i;
    }
  }
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
  /// Whether parameter_gradients writes what is wanted, or sums it: not for a matrix that some of the
  /// members share, for which it would be one matrix a member.
  bool is_written(size_t i) const {
    const bool matrix = i == kQ || i == kG || i == kA;
    return wants[i] && (!matrix || is_batched(i) || is_summed(i));
  }
  /// `written`, of parameter_gradients, as the gradient of parameter i.
  Tensor reduced(size_t i, Tensor written) const {
    return is_summed(i) ? written.view(shape(i)) : at::sum_to(std::move(written), shape(i));
  }
  /// Which matrices are summed, as parameter_gradients asks.
  std::array<bool, 3> summed() const { return {is_summed(kQ), is_summed(kG), is_summed(kA)}; }
  /// Whether all members have one matrix.
  bool is_summed(size_t i) const {
    return present(i) && core(i) == 2 && !is_batched(i) && c10::multiply_integers(leading(i)) == 1;
  }
  /// Where a member was solved, [*, 1].
  Tensor solved() const {
    return status.le(static_cast<int>(Status::kSolvedInaccurate)).unsqueeze(-1);
  }
  /// Carries the cotangent of the slack h - Gz on to that of z. Returns what is left of it for G and h,
  /// undefined where there is nothing.
  Tensor through_slack(const Tensor& cotangent, Tensor& g_z) const {
    if (!cotangent.defined() || !present(kH)) return {};
    const Tensor g_slack = zero_unless(solved(), cotangent);
    g_z = plus(g_z, -product(G.mT(), g_slack.unsqueeze(-1)).squeeze(-1));
    return g_slack;
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
  /// The tensor that a derivative saved `i` places after these.
  const Tensor& further(size_t i) const { return saved_[9 + i]; }
};

/// The parameters in the order of parameter_gradients.
inline constexpr std::array<size_t, 8> kWrittenOrder = {kQ, kG, kHLower, kH, kA, kB, kLb, kUb};

}  // namespace torchqp::torch_ops
