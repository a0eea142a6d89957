#pragma once
// The KKT residuals of a point, in the caller's units, and what "solved" means.

#include "core/settings.hpp"
#include "linalg/products.hpp"
#include "qp/iterate.hpp"

namespace torchqp::qp {
TORCHQP_BEGIN_ISA_NAMESPACE

/// Infinity norms of the four KKT residuals and the largest term that each is made of.
template <class Scalar>
struct Residuals {
  Scalar stationarity, primal, dual_sign, gap;
  Scalar stationarity_reference, primal_reference, dual_sign_reference, gap_reference;
  Scalar multiplier_image;  ///< ||A'nu + C'lam||, for certificates
  Scalar support;  ///< b'nu + sup over the constraints of lam'y: negative, it proves infeasibility
  Scalar support_reference;  ///< the sum of the sizes of its terms
  Scalar slope;              ///< q'z, for certificates

  /// The largest of r / (eps_abs + eps_rel reference): at most 1 when solved.
  TORCHQP_HD Scalar merit(const Settings& settings) const {
    const auto ratio = [&](Scalar value, Scalar reference) {
      return value / fused(broadcast<Scalar>(settings.eps_rel), reference,
                           broadcast<Scalar>(settings.eps_abs + 1e-300 +
                                             1e-37 * (sizeof(Element<Scalar>) == 4)));
    };
    Scalar result = ratio(stationarity, stationarity_reference);
    result = max_norm(result, ratio(primal, primal_reference));
    result = max_norm(result, ratio(dual_sign, dual_sign_reference));
    return max_norm(result, ratio(gap, gap_reference));
  }

  /// Takes over those of `other` for the problems in `which`.
  TORCHQP_HD void take(MaskOf<Scalar> which, const Residuals& other) {
    stationarity = select(which, other.stationarity, stationarity);
    primal = select(which, other.primal, primal);
    dual_sign = select(which, other.dual_sign, dual_sign);
    gap = select(which, other.gap, gap);
    stationarity_reference = select(which, other.stationarity_reference, stationarity_reference);
    primal_reference = select(which, other.primal_reference, primal_reference);
    dual_sign_reference = select(which, other.dual_sign_reference, dual_sign_reference);
    gap_reference = select(which, other.gap_reference, gap_reference);
    multiplier_image = select(which, other.multiplier_image, multiplier_image);
    support = select(which, other.support, support);
    support_reference = select(which, other.support_reference, support_reference);
    slope = select(which, other.slope, slope);
  }
};

/// y = (G z, z).
///
/// Team: every lane calls; z is visible to all on entry; ends with a sync.
template <class Team, class Scalar>
TORCHQP_HD_CALL void constraint_values(const Team& team, const Data<Scalar>& data, const Scalar* z,
                                       Scalar* y) {
  const Shape& s = data.shape;
  linalg::multiply<linalg::Into::kReplace>(team, data.G, s.np, s.mp, s.np, z, y);
  if (s.bounds) {
    team.for_each(s.np, [&](int i) { y[s.mp + i] = z[i]; });
    team.template sync<Site::kFill>();
  }
}

/// y = Q z.
///
/// Team: every lane calls; z is visible to all on entry; ends with a sync, but where Q is diagonal:
/// then a lane sees its own entries of y.
template <class Team, class Scalar>
TORCHQP_HD_CALL void multiply_hessian(const Team& team, const Data<Scalar>& data, const Scalar* z,
                                      Scalar* y) {
  const Shape& s = data.shape;
  if (s.diagonal) {
    team.for_each(s.np, [&](int i) { y[i] = data.Q[i] * z[i]; });
  } else {
    linalg::multiply_symmetric(team, data.Q, s.np, s.np, z, y);
  }
}

/// x = C' v = G' v_rows + v_bounds.
///
/// Team: every lane calls; v is visible to all on entry; ends with a sync.
template <class Team, class Scalar>
TORCHQP_HD_CALL void constraint_transpose(const Team& team, const Data<Scalar>& data,
                                          const Scalar* v, Scalar* x) {
  const Shape& s = data.shape;
  linalg::multiply_transposed<linalg::Into::kReplace>(team, data.G, s.np, s.mp, s.np, v, x);
  if (s.bounds) {
    team.for_each(s.np, [&](int i) { x[i] = x[i] + v[s.mp + i]; });
    team.template sync<Site::kFill>();
  }
}

/// The terms of the KKT residuals at (z, nu, lam): it.Qz, it.Atnu, it.Ctlam, it.y, and A z in
/// it.r_p.
///
/// Team: every lane calls; the point is visible to all on entry; ends with a sync.
template <class Team, class Scalar>
TORCHQP_HD_CALL void residual_terms(const Team& team, const Data<Scalar>& data,
                                    const Iterate<Scalar>& it) {
  const Shape& s = data.shape;
  multiply_hessian(team, data, it.z, it.Qz);
  linalg::multiply_both(team, data.A, s.np, s.pp, s.np, it.z, it.r_p, it.nu, it.Atnu);
  linalg::multiply_both(team, data.G, s.np, s.mp, s.np, it.z, it.y, it.lam, it.Ctlam);
  if (s.bounds) {
    team.for_each(s.np, [&](int i) {
      it.y[s.mp + i] = it.z[i];
      it.Ctlam[i] = it.Ctlam[i] + it.lam[s.mp + i];
    });
    team.template sync<Site::kFill>();
  }
}

/// it.lam = multipliers of the upper sides minus those of the lower sides, plus those of the
/// equalities among the constraints.
///
/// Team: every lane calls and sees its own entries of the multipliers on entry; ends with a sync.
template <class Team, class Scalar>
TORCHQP_HD_CALL void net_multipliers(const Team& team, const Shape& s, const Iterate<Scalar>& it) {
  team.for_each(s.k, [&](int i) {
    Scalar net = broadcast<Scalar>(0);
    it.for_each_side([&](const Side<Scalar>& side) {
      net = fused(broadcast<Scalar>(side.sign), side.lam[i], net);
    });
    it.lam[i] = it.has_equal() ? net + it.lam_equal[i] : net;
  });
  team.template sync<Site::kResiduals>();
}

/// sum + constraint i's part of the support: multipliers times the bounds they belong to.
template <class Scalar>
TORCHQP_HD Scalar add_support(const Iterate<Scalar>& it, int i, Scalar sum) {
  const Scalar zero = broadcast<Scalar>(0);
  it.for_each_side([&](const Side<Scalar>& side) {
    const Scalar bound = select(side.has[i] > zero, side.bound[i], zero);
    sum = fused(broadcast<Scalar>(side.sign) * bound, side.lam[i], sum);
  });
  if (!it.has_equal()) return sum;
  return fused(select(it.equal[i] > zero, it.upper.bound[i], zero), it.lam_equal[i], sum);
}

/// Forms r_d, r_p, y and the terms of r_d at (z, nu, lam), and their norms in the caller's units.
///
/// The multipliers are read from it.upper.lam, it.lower.lam and it.lam_equal; their net value is
/// written to it.lam. Team: every lane calls and sees its own entries of the iterate on entry; ends
/// with a sync.
template <class Team, class Scalar>
TORCHQP_HD_CALL Residuals<Scalar> kkt_residuals(const Team& team, const Data<Scalar>& data,
                                                const Scale<Scalar>& scale,
                                                const Iterate<Scalar>& it) {
  const Shape& s = data.shape;
  const Scalar zero = broadcast<Scalar>(0);
  net_multipliers(team, s, it);
  residual_terms(team, data, it);

  // Every lane takes the norms of its entries, which it also completes.
  const Scalar inverse_cost = reciprocal(scale.cost[0]);
  Scalar norms[7] = {zero, zero, zero, zero, zero, zero, zero};
  Scalar &stationarity = norms[0], &stationarity_reference = norms[1], &multiplier_image = norms[2];
  Scalar &primal = norms[3], &primal_reference = norms[4];
  Scalar &dual_sign = norms[5], &dual_sign_reference = norms[6];
  team.for_each(s.pp, [&](int i) {
    const Scalar unscale = reciprocal(scale.equality[i]), miss = it.r_p[i] - data.b[i];
    primal_reference =
        max_norm(max_norm(primal_reference, it.r_p[i] * unscale), data.b[i] * unscale);
    primal = max_norm(primal, miss * unscale);
    it.r_p[i] = miss;
  });
  team.for_each(s.np, [&](int i) {
    const Scalar unscale = inverse_cost / scale.variable[i];
    const Scalar slope = ((it.Qz[i] + data.q[i]) + it.Atnu[i]) + it.Ctlam[i];
    it.r_d[i] = slope;
    stationarity = max_norm(stationarity, slope * unscale);
    Scalar reference = max_norm(stationarity_reference, it.Qz[i] * unscale);
    reference = max_norm(max_norm(reference, data.q[i] * unscale), it.Atnu[i] * unscale);
    stationarity_reference = max_norm(reference, it.Ctlam[i] * unscale);
    multiplier_image = max_norm(multiplier_image, (it.Atnu[i] + it.Ctlam[i]) * unscale);
  });
  it.for_each_side([&](const Side<Scalar>& side) {
    const Scalar sign = broadcast<Scalar>(side.sign);
    team.for_each(s.k, [&](int i) {
      const auto exists = side.has[i] > zero;
      const Scalar bound = select(exists, side.bound[i], zero);
      const Scalar unscale = reciprocal(scale.row[i]);
      const Scalar violation = select(exists, maximum(sign * (it.y[i] - bound), zero), zero);
      primal = max_norm(primal, violation * unscale);
      primal_reference = max_norm(primal_reference, bound * unscale);
      primal_reference = max_norm(primal_reference, select(exists, it.y[i], zero) * unscale);
      const Scalar multiplier = (side.lam[i] * scale.row[i]) * inverse_cost;
      dual_sign = max_norm(dual_sign, maximum(-multiplier, zero));
      dual_sign_reference = max_norm(dual_sign_reference, multiplier);
    });
  });
  if (it.has_equal()) {
    team.for_each(s.k, [&](int i) {
      const auto exists = it.equal[i] > zero;
      const Scalar bound = select(exists, it.upper.bound[i], zero),
                   value = select(exists, it.y[i], zero);
      const Scalar unscale = reciprocal(scale.row[i]);
      primal = max_norm(primal, (value - bound) * unscale);
      primal_reference = max_norm(max_norm(primal_reference, bound * unscale), value * unscale);
    });
  }
  team.template max_all<Site::kResiduals>(norms);

  Scalar sums[4];
  const int rows = s.mp > s.pp ? s.mp : s.pp;
  team.template sums<Site::kResiduals>(s.np > rows ? s.np : rows, sums,
                                       [&](int i, Scalar(&sum)[4]) {
                                         if (i < s.np) {
                                           sum[0] = fused(it.z[i], it.Qz[i], sum[0]);
                                           sum[1] = fused(it.z[i], data.q[i], sum[1]);
                                         }
                                         if (i < s.pp) {
                                           const Scalar term = data.b[i] * it.nu[i];
                                           sum[2] = sum[2] + term, sum[3] = sum[3] + absolute(term);
                                         }
                                         s.for_constraints_at(i, [&](int c) {
                                           const Scalar term = add_support(it, c, zero);
                                           sum[2] = sum[2] + term, sum[3] = sum[3] + absolute(term);
                                         });
                                       });
  const Scalar quadratic = sums[0], linear = sums[1], support = sums[2];
  Residuals<Scalar> out;
  out.stationarity = stationarity, out.stationarity_reference = stationarity_reference;
  out.primal = primal, out.primal_reference = primal_reference;
  out.dual_sign = dual_sign, out.dual_sign_reference = dual_sign_reference;
  out.multiplier_image = multiplier_image;
  out.slope = linear * inverse_cost;
  out.support = support * inverse_cost;
  out.support_reference = sums[3] * inverse_cost;
  out.gap = absolute((quadratic + linear) + support) * inverse_cost;
  out.gap_reference = max_norm(max_norm(absolute(quadratic), linear), support) * inverse_cost;
  return out;
}

TORCHQP_END_ISA_NAMESPACE
}  // namespace torchqp::qp
