#pragma once
// The direct method for a positive diagonal Q = diag(D), bounds and at most one row: box, simplex,
// capped simplex, knapsack. With the multiplier nu of the row a the solution is explicit,
//
//   z(nu) = clip(c - w nu, lb, ub),   c = -q / D,   w = a / D,
//
// and a'z(nu) is piecewise linear and never rises with nu. Where it takes the value that the row
// asks for is found by Newton's method, which is exact on the right piece and so ends after
// finitely many steps. What a step leaves lies between two points that are known to be below and
// above; a step that leaves that bracket, or two that do not halve it, are replaced by a secant or
// a bisection.
//
// Source: R. Cominetti, W. F. Mascarenhas, P. J. S. Silva, "A Newton's method for the continuous
// quadratic knapsack problem", Math. Prog. Comp. 6 (2014).

#include "core/status.hpp"
#include "qp/residuals.hpp"
#include "qp/result.hpp"

namespace torchqp::qp {
TORCHQP_BEGIN_ISA_NAMESPACE

/// Whether the direct method is tried first.
TORCHQP_HD bool has_single_row(const Shape& s) {
  return s.diagonal && s.m + s.p <= 1;
}

/// Values of nu that are tried. Newton's method takes 4 to 14, stairs (a small curvature beside wide
/// bounds) some 40; what is not found by then is left to the interior point.
inline constexpr int kRootSteps = 256;
/// Steps to one side after which they double: Newton's may pass a single breakpoint each.
inline constexpr int kRootPatience = 10;

namespace detail {

/// The problem in the caller's units. There may be no row and no bounds of either side.
template <class Scalar>
struct SingleRow {
  int n;
  bool row, lower, upper;  ///< what there is
  const Scalar *D, *q, *a, *lb, *ub;
  Scalar *c, *w;                ///< [n] 0 <= i < n; where lb = ub, c = lb and w = 0
  Scalar row_lower, row_upper;  ///< both b for an equality

  TORCHQP_HD SingleRow(const Data<Scalar>& data, Scalar* c_work, Scalar* w_work)
      : n(data.shape.n),
        row(data.shape.m + data.shape.p > 0),
        lower(data.shape.bounds && data.shape.lower),
        upper(data.shape.bounds && data.shape.upper),
        D(data.Q),
        q(data.q),
        a(data.shape.p > 0 ? data.A : data.G),
        lb(data.lower + data.shape.mp),
        ub(data.upper + data.shape.mp),
        c(c_work),
        w(w_work),
        row_lower(broadcast<Scalar>(0)),
        row_upper(broadcast<Scalar>(0)) {
    if (data.shape.p > 0) row_lower = row_upper = data.b[0];
    if (data.shape.m > 0) row_lower = data.lower[0], row_upper = data.upper[0];
  }

  /// Keeps a NaN.
  TORCHQP_HD Scalar clip(int i, Scalar t) const {
    if (lower) t = maximum(t, lb[i]);
    return upper ? minimum(t, ub[i]) : t;
  }
};

/// sum of a z, minus its derivative, sum of |a z|.
template <class Scalar>
struct RowValue {
  Scalar value, slope, size;
};

template <class Scalar>
TORCHQP_HD_CALL RowValue<Scalar> row_value(const SingleRow<Scalar>& r, Scalar nu) {
  const Scalar zero = broadcast<Scalar>(0);
  RowValue<Scalar> out{zero, zero, zero};
  TORCHQP_ROLLED
  for (int i = 0; i < r.n; ++i) {
    const Scalar t = fnma(r.w[i], nu, r.c[i]), z = r.clip(i, t);
    out.value = fused(r.a[i], z, out.value);
    out.slope = fused(select(z == t, r.a[i], zero), r.w[i], out.slope);
    out.size = fused(absolute(r.a[i]), absolute(z), out.size);
  }
  return out;
}

/// The next nu, upwards where `up` and downwards elsewhere, at which a clipped variable has come
/// free, beyond the rounding of it; infinite where none does.
template <class Scalar>
TORCHQP_HD_CALL Scalar next_breakpoint(const SingleRow<Scalar>& r, Scalar nu, MaskOf<Scalar> up) {
  const Scalar infinity = broadcast<Scalar>(std::numeric_limits<double>::infinity());
  const Scalar rounding = broadcast<Scalar>(4 * epsilon_v<Scalar>);
  Scalar above = infinity, below = -infinity;
  TORCHQP_ROLLED
  for (int i = 0; i < r.n; ++i) {
    const Scalar t = fnma(r.w[i], nu, r.c[i]), z = r.clip(i, t);
    const Scalar at = (r.c[i] - z) / r.w[i];
    const Scalar error = rounding * (absolute(r.c[i]) + absolute(z)) / absolute(r.w[i]);
    const auto clipped = both(z != t, r.w[i] != broadcast<Scalar>(0));
    above = select(both(clipped, at > nu), minimum(above, at + error), above);
    below = select(both(clipped, at < nu), maximum(below, at - error), below);
  }
  return select(up, above, below);
}

/// What pass 1 finds: c and w, and where all variables would be free.
template <class Scalar>
struct RowStart {
  Scalar nu;              ///< row value = b if no variable were clipped
  Scalar slope;           ///< sum of a w
  MaskOf<Scalar> usable;  ///< D > 0, lb <= ub
};

template <class Team, class Scalar>
TORCHQP_HD_CALL RowStart<Scalar> prepare_row(const Team& team, const SingleRow<Scalar>& r) {
  const Scalar zero = broadcast<Scalar>(0);
  auto usable = r.row_lower <= r.row_upper;
  Scalar value = zero, slope = zero;
  TORCHQP_ROLLED
  for (int i = 0; i < r.n; ++i) {
    const Scalar inverse = reciprocal(r.D[i]), rough = r.q[i] * inverse;
    Scalar c = zero - fused(fnma(r.D[i], rough, r.q[i]), inverse, rough), w = zero;
    if (r.row) w = r.a[i] * inverse;
    usable = both(usable, r.D[i] > zero);
    if (r.lower && r.upper) {
      usable = both(usable, r.lb[i] <= r.ub[i]);
      const auto closed = r.lb[i] == r.ub[i];
      c = select(closed, r.lb[i], c);
      w = select(closed, zero, w);
    }
    if (r.row) {
      value = fused(r.a[i], c, value);
      slope = fused(r.a[i], w, slope);
    }
    if (i % team.size() == team.lane()) r.c[i] = c, r.w[i] = w;
  }
  team.template sync<Site::kSingleRow>();
  const Scalar start = (value - r.row_upper) / slope;
  const auto equality = both(r.row_lower == r.row_upper, is_finite(start));
  return {select(equality, start, zero), slope, usable};
}

/// The multiplier nu + rest of the row.
template <class Scalar>
struct RowRoot {
  Scalar nu, rest;  ///< rest is below the rounding of nu
  Scalar target;    ///< what the row's value is to be
  Scalar size;      ///< sum of the row's terms in magnitude
  MaskOf<Scalar> found;
};

/// Finds nu for the problems in `open`; nu = 0 where the row's inequality holds without it.
template <class Scalar>
TORCHQP_HD_CALL RowRoot<Scalar> find_root(const SingleRow<Scalar>& r, Scalar start,
                                          MaskOf<Scalar> open) {
  const Scalar zero = broadcast<Scalar>(0), half = broadcast<Scalar>(0.5);
  const Scalar infinity = broadcast<Scalar>(std::numeric_limits<double>::infinity());
  // The rounding of a sum of n terms.
  const Scalar rounding = broadcast<Scalar>((8 + r.n / 64.0) * epsilon_v<Scalar>);
  Scalar low = -infinity, high = infinity, low_excess = zero, high_excess = zero;
  Scalar width = infinity, earlier = infinity, stride = zero;
  Scalar nu = start, target = zero, slope = zero, excess = zero, size = zero;
  auto found = broadcast_mask<Scalar>(false);
  for (int step = 0; step < kRootSteps && any(open); ++step) {
    const RowValue<Scalar> now = row_value(r, nu);
    if (step == 0) target = minimum(maximum(now.value, r.row_lower), r.row_upper);
    // A problem that is done gets the values that it has.
    excess = now.value - target, slope = now.slope, size = now.size + absolute(target);
    auto settled = absolute(excess) <= rounding * size;

    const auto up = excess > zero;
    low = select(up, nu, low), low_excess = select(up, excess, low_excess);
    high = select(up, high, nu), high_excess = select(up, high_excess, excess);
    const auto inside = [&](Scalar x) { return both(x > low, x < high); };
    const auto bounded = both(low > -infinity, high < infinity);
    const auto slow = both(bounded, high - low > half * earlier);
    earlier = width, width = high - low;
    Scalar next = nu + excess / slope;
    settled = either(settled, next == nu);
    const auto newton = both(inside(next), negate(slow));
    const Scalar secant = fused(high - low, low_excess / (low_excess - high_excess), low);
    const Scalar middle = fused(half, low, half * high);
    next = select(newton, next, select(both(inside(secant), negate(slow)), secant, middle));
    settled = either(settled, both(bounded, negate(inside(next))));  // neighbouring numbers
    found = either(found, both(open, settled));
    open = both(open, negate(settled));
    const auto flat = both(open, negate(either(newton, bounded)));
    if (any(flat)) next = select(flat, next_breakpoint(r, nu, up), next);
    const auto crawls = step < kRootPatience ? flat : both(open, negate(bounded));
    const Scalar leap = select(up, nu + (stride + stride), nu - (stride + stride));
    const Scalar farther = select(up, maximum(next, leap), minimum(next, leap));
    next = select(crawls, farther, next);
    stride = absolute(next - nu);
    open = both(open, is_finite(next));
    nu = select(open, next, nu);
  }
  const Scalar rest = excess / slope;
  const auto fine = absolute(rest) <= absolute(nu) * broadcast<Scalar>(16 * epsilon_v<Scalar>);
  return {nu, select(fine, rest, zero), target, size, found};
}

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
///   work  c, w      [np]
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
                                                const Settings& settings, Scalar* c, Scalar* w,
                                                const Result<Scalar>& result) {
  const Scalar zero = broadcast<Scalar>(0), one = broadcast<Scalar>(1);
  const detail::SingleRow<Scalar> row(data, c, w);
  const detail::RowStart<Scalar> start = detail::prepare_row(team, row);
  detail::RowRoot<Scalar> root{zero, zero, zero, zero, start.usable};
  if (row.row) root = detail::find_root(row, start.nu, start.usable);
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
