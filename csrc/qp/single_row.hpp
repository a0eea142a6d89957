#pragma once
// The direct method for a positive diagonal Q = diag(D), bounds and at most one row: box, simplex,
// capped simplex, knapsack. With the multiplier nu of the row a the solution is explicit,
//
//   z(nu) = clip(c - w nu, lb, ub),   c = -q / D,   w = a / D,
//
// and nu is where a'z(nu) takes the value that the row asks for (single_row_root.hpp).

#include "core/status.hpp"
#include "qp/residuals.hpp"
#include "qp/result.hpp"
#include "qp/single_row_root.hpp"

namespace torchqp::qp {
TORCHQP_BEGIN_ISA_NAMESPACE

/// Whether the direct method is tried first.
TORCHQP_HD bool has_single_row(const Shape& s) {
  return s.diagonal && s.m + s.p <= 1;
}

namespace detail {

/// Writes the solution that belongs to nu and returns its residuals. Where arithmetic broke down
/// `gap` is not finite.
template <class Team, class Scalar>
TORCHQP_HD_CALL Residuals<Scalar> write_solution(const Team& team, const SingleRow<Scalar>& r,
                                                 const RowRoot<Scalar>& root, Scalar slope,
                                                 const Shape& s, const Result<Scalar>& out) {
  const Scalar zero = broadcast<Scalar>(0), one = broadcast<Scalar>(1);
  const Scalar most = broadcast<Scalar>(std::numeric_limits<Element<Scalar>>::max());
  const Scalar nu = root.nu + root.rest;
  // How far rounding moves nu: a variable this near to a bound meets it to the bit.
  Scalar noise = root.size * broadcast<Scalar>(8 * epsilon_v<Scalar>) / slope;
  noise = select(is_finite(noise), noise, zero);
  Residuals<Scalar> res;
  res.stationarity = res.primal = res.dual_sign = res.stationarity_reference = zero;
  res.multiplier_image = res.primal_reference = res.dual_sign_reference = res.slope = zero;
  Scalar quadratic = zero, linear = zero, support = zero, value = zero, largest_term = zero;
  const auto grow = [](Scalar& size, Scalar x) { size = maximum(size, absolute(x)); };
  TORCHQP_ROLLED
  for (int i = 0; i < r.n; ++i) {
    Scalar t = r.c[i], row_term = zero;
    if (r.row) {
      t = fnma(r.w[i], root.rest, fnma(r.w[i], root.nu, t));
      row_term = r.a[i] * nu;
    }
    Scalar z = r.clip(i, t);
    const auto below = z > t, above = z < t;
    if (r.row) {
      const Scalar reach = absolute(r.w[i]) * noise;
      if (r.lower) z = select(z <= r.lb[i] + reach, r.lb[i], z);
      if (r.upper) z = select(z >= r.ub[i] - reach, r.ub[i], z);
    }
    const Scalar Dz = r.D[i] * z;
    const Scalar slope_of_z = (Dz + r.q[i]) + row_term, push = zero - slope_of_z;
    Scalar lam = zero, active = zero;
    if (r.lower) {
      lam = select(below, minimum(push, zero), lam);
      active = select(below, -one, active);
    }
    if (r.upper) {
      lam = select(above, maximum(push, zero), lam);
      active = select(above, one, active);
    }
    if (r.lower && r.upper) {
      const auto closed = r.lb[i] == r.ub[i];
      lam = select(closed, push, lam);
      active = select(closed, select(lam < zero, -one, one), active);
    }
    grow(res.stationarity, slope_of_z + lam);
    Scalar terms = maximum(absolute(Dz), absolute(r.q[i]));
    if (s.p > 0) grow(terms, row_term);
    if (s.m > 0) grow(terms, row_term + lam);
    grow(largest_term, terms);
    grow(res.dual_sign_reference, lam);
    Scalar sides = zero;
    const auto bound = [&](Scalar x) {
      const Scalar size = absolute(x);
      sides = maximum(sides, select(size <= most, maximum(size, absolute(z)), zero));
    };
    if (r.lower) bound(r.lb[i]);
    if (r.upper) bound(r.ub[i]);
    res.primal_reference = maximum(res.primal_reference, sides);
    quadratic = fused(z, Dz, quadratic);
    linear = fused(z, r.q[i], linear);
    support = fused(z, lam, support);
    if (r.row) value = fused(r.a[i], z, value);
    if (i % team.size() == team.lane()) {
      out.z[i] = z;
      if (s.bounds) out.lam[s.mp + i] = lam, out.active[s.mp + i] = active;
    }
  }
  res.stationarity_reference = largest_term;
  if (s.m == 0) grow(res.stationarity_reference, res.dual_sign_reference);
  if (r.row) {
    const auto held = either(r.row_lower == r.row_upper, nu != zero);
    const Scalar miss = maximum(value - r.row_upper, r.row_lower - value);
    res.primal = select(held, absolute(value - root.target), maximum(miss, zero));
    grow(res.primal_reference, value);
    grow(res.primal_reference, select(is_finite(r.row_lower), r.row_lower, zero));
    grow(res.primal_reference, select(is_finite(r.row_upper), r.row_upper, zero));
    if (s.m > 0) grow(res.dual_sign_reference, nu);
    support = select(held, fused(nu, root.target, support), support);
  }
  res.support = support;
  res.gap = absolute((quadratic + linear) + support);
  res.gap_reference = zero;
  grow(res.gap_reference, quadratic);
  grow(res.gap_reference, linear);
  grow(res.gap_reference, support);

  const Scalar side = select(r.row_lower == r.row_upper, one, zero);
  const Scalar row_active = select(nu > zero, one, select(nu < zero, -one, side));
  team.for_each(s.np - s.n, [&](int i) { out.z[s.n + i] = zero; });
  team.for_each(s.pp, [&](int i) { out.nu[i] = i == 0 && s.p > 0 ? nu : zero; });
  team.for_each(s.mp, [&](int i) {
    out.lam[i] = i == 0 ? nu : zero, out.active[i] = i == 0 ? row_active : zero;
    out.slack[i] = i == 0 ? r.row_upper - value : zero;
  });
  if (s.bounds) {
    team.for_each(s.np - s.n, [&](int i) {
      out.lam[s.mp + s.n + i] = zero, out.active[s.mp + s.n + i] = zero;
    });
  }
  return res;
}

}  // namespace detail

/// Solves problems with has_single_row(data.shape).
///
///   in    data      not changed
///   out   result    written for the problems returned; anything for the others
///   in    again     whether D is that of the last call, all of whose problems were returned
///   kept  inverses  [np] from call to call, for `again`
///   work  c, w, numbers, more      [np]
///   returns         where the solution was found and its residuals, in the caller's units, meet
///                   the tolerances. The others (D not positive, data not finite, bounds that
///                   cross, infeasible) are left to the general method.
///
/// Team:    every lane calls with equal arguments; the data are visible to all on entry; ends with
///          a sync.
/// Bitwise: equal for every team size; a problem's result does not depend on its company.
/// Cost:    one pass over D, q, a, lb, ub, one over c, w, a, lb, ub for every nu that is tried, one
///          over all. Every lane of the team goes through all entries. Never allocates.
template <class Team, class Scalar>
TORCHQP_HD_CALL MaskOf<Scalar> solve_single_row(const Team& team, const Data<Scalar>& data,
                                                const Settings& settings, bool again,
                                                Scalar* inverses, Scalar* c, Scalar* w,
                                                Scalar* numbers, Scalar* more,
                                                const Result<Scalar>& result) {
  const Scalar zero = broadcast<Scalar>(0), one = broadcast<Scalar>(1);
  const detail::SingleRow<Scalar> row(data, c, w);
  const detail::RowStart<Scalar> start = detail::prepare_row(team, row, inverses, again);
  detail::RowRoot<Scalar> root{zero, zero, zero, zero, start.usable};
  if (row.row) root = detail::find_root(team, row, start, numbers, more);
  const Residuals<Scalar> r =
      detail::write_solution(team, row, root, start.slope, data.shape, result);
  team.single([&] {
    result.residuals[0] = r.stationarity / (one + r.stationarity_reference);
    result.residuals[1] = r.primal / (one + r.primal_reference);
    result.residuals[2] = r.dual_sign / (one + r.dual_sign_reference);
    result.residuals[3] = r.gap / (one + r.gap_reference);
    result.status[0] = broadcast<Scalar>(static_cast<int>(Status::kSolved));
    result.iterations[0] = zero;
    result.factor_tag[0] = zero;
  });
  team.template sync<Site::kFinish>();
  const auto solved = both(r.merit(settings) <= broadcast<Scalar>(solved_merit_v<Scalar>),
                           both(is_finite(r.gap), is_finite(r.stationarity_reference)));
  return both(root.found, solved);
}

TORCHQP_END_ISA_NAMESPACE
}  // namespace torchqp::qp
