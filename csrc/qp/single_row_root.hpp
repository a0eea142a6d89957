#pragma once
// The multiplier nu of the row in the direct method: the root of a'z(nu) = b, a sum of clipped lines
// that never rises with nu; see single_row.hpp.
//
// Newton's method is exact on the right piece and so ends after finitely many steps. What a step
// leaves lies between two points that are known to be below and above; a step that leaves that
// bracket, or two that do not halve it, are replaced by a secant or a bisection. It starts where no
// single variable takes more than the row leaves it; from there on nu rises as a rule, and variables
// that have come to a bound of zero stay there and are not looked at again.
//
// Source: R. Cominetti, W. F. Mascarenhas, P. J. S. Silva, "A Newton's method for the continuous
// quadratic knapsack problem", Math. Prog. Comp. 6 (2014).

#include <type_traits>

#include "core/team.hpp"
#include "qp/data.hpp"

namespace torchqp::qp {
TORCHQP_BEGIN_ISA_NAMESPACE

/// Values of nu that are tried. Newton's method takes 4 to 14, stairs (a small curvature beside wide
/// bounds) some 40; what is not found by then is left to the interior point.
inline constexpr int kRootSteps = 256;
/// Steps to one side after which they double: Newton's may pass a single breakpoint each.
inline constexpr int kRootPatience = 10;

/// Variables from which on it pays to list those that are not at their bounds.
inline constexpr int kListedFrom = 32;

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

/// The variables that a sum over the row goes through, of `n`: all, or those that are listed.
struct Listed {
  int32_t *now, *next;  ///< [count]; next is where the following list goes
  int count, kept;      ///< entries of both

  /// Lists all, in two arrays of n numbers.
  TORCHQP_HD Listed(int n, int32_t* list, int32_t* other)
      : now(list), next(other), count(n), kept(0) {
    for (int i = 0; i < n; ++i) now[i] = i;
  }

  /// What was kept becomes the list.
  TORCHQP_HD void advance() {
    int32_t* const last = now;
    now = next, next = last, count = kept;
  }
};
struct All {
  int count;
  TORCHQP_HD explicit All(int n) : count(n) {}
};

/// sum of a z, minus its derivative, sum of |a z|.
template <class Scalar>
struct RowValue {
  Scalar value, slope, size;
};

/// Variables: All; or Listed, where all bounds below are zero, so that a variable that is not listed,
/// as it is at its bound, is no term of the sums. Of those listed the ones are kept that some problem
/// in `open` does not have there.
template <class Scalar, class Variables>
TORCHQP_HD_CALL RowValue<Scalar> row_value(const SingleRow<Scalar>& r, Scalar nu,
                                           MaskOf<Scalar> open, Variables& variables) {
  constexpr bool kLists = std::is_same_v<Variables, Listed>;
  const Scalar zero = broadcast<Scalar>(0);
  RowValue<Scalar> out{zero, zero, zero};
  const Variables from = variables;  // in registers: stores to the list could change it
  int kept = 0;
  TORCHQP_ROLLED
  for (int k = 0; k < from.count; ++k) {
    int i = k;
    if constexpr (kLists) i = from.now[k];
    const Scalar t = fnma(r.w[i], nu, r.c[i]), z = r.clip(i, t);
    out.value = fused(r.a[i], z, out.value);
    out.slope = fused(select(z == t, r.a[i], zero), r.w[i], out.slope);
    out.size = fused(absolute(r.a[i]), absolute(z), out.size);
    if constexpr (kLists) {
      from.next[kept] = i;
      kept += any(both(open, negate(t < zero))) ? 1 : 0;
    }
  }
  if constexpr (kLists) variables.kept = kept;
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

/// What pass 1 finds: c and w, and where to start.
template <class Scalar>
struct RowStart {
  Scalar nu;              ///< of two guesses the larger: row value = b if no variable were clipped,
                          ///< or if one variable took all that the others' least values leave
  Scalar slope;           ///< sum of a w
  MaskOf<Scalar> usable;  ///< D > 0, lb <= ub
  MaskOf<Scalar> falls;   ///< lb = 0 and w >= 0: once at its bound, a variable stays as nu rises
};

/// `inverses` keeps 1 / D, which is there already where D is that of the last problems, `again`.
///
/// The second guess: a_k z_k(nu) is at most b less what the others take at least, so that for any k
/// with a_k > 0 that no upper bound stops before
///
///   nu >= (a_k (c_k - lb_k) - (b - sum_i min a_i z_i)) / (a_k w_k);
///
/// k is where a_k (c_k - lb_k) is largest.
template <class Team, class Scalar>
TORCHQP_HD_CALL RowStart<Scalar> prepare_row(const Team& team, const SingleRow<Scalar>& r,
                                             Scalar* inverses, bool again) {
  const Scalar zero = broadcast<Scalar>(0);
  const Scalar infinity = broadcast<Scalar>(std::numeric_limits<double>::infinity());
  auto usable = r.row_lower <= r.row_upper;
  auto falls = broadcast_mask<Scalar>(r.lower);
  Scalar value = zero, slope = zero;
  Scalar least = zero, most = zero, most_slope = zero;  // of the row; above lb, of one variable
  TORCHQP_ROLLED
  for (int i = 0; i < r.n; ++i) {
    const Scalar inverse = again ? inverses[i] : reciprocal(r.D[i]), rough = r.q[i] * inverse;
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
    if (r.row && r.lower) {
      falls = both(falls, both(r.lb[i] == zero, w >= zero));
      const auto rises = r.a[i] >= zero;
      least = least + select(rises, r.a[i] * r.lb[i], r.upper ? r.a[i] * r.ub[i] : -infinity);
      const Scalar reach = r.a[i] * (c - r.lb[i]);
      const auto larger = both(rises, reach > most);
      most = select(larger, reach, most);
      most_slope = select(larger, r.a[i] * w, most_slope);
    }
    if (i % team.size() == team.lane()) {
      r.c[i] = c, r.w[i] = w;
      if (!again) inverses[i] = inverse;  // other lanes read it now
    }
  }
  team.template sync<Site::kSingleRow>();
  Scalar start = (value - r.row_upper) / slope;
  const Scalar alone = (most - (r.row_upper - least)) / most_slope;
  start = select(both(is_finite(alone), alone > start), alone, start);
  const auto equality = both(r.row_lower == r.row_upper, is_finite(start));
  return {select(equality, start, zero), slope, usable, falls};
}

/// The multiplier nu + rest of the row.
template <class Scalar>
struct RowRoot {
  Scalar nu, rest;  ///< rest is below the rounding of nu
  Scalar target;    ///< what the row's value is to be
  Scalar size;      ///< sum of the row's terms in magnitude
  MaskOf<Scalar> found;
};

/// Finds nu for the problems in `open`; nu = 0 where the row's inequality holds without it. With Listed
/// variables a problem's bits are those of All: what is left out adds zero to the sums.
template <class Scalar, class Variables>
TORCHQP_HD_CALL RowRoot<Scalar> find_root_among(Variables variables, const SingleRow<Scalar>& r,
                                                Scalar start, MaskOf<Scalar> open) {
  const Scalar zero = broadcast<Scalar>(0), half = broadcast<Scalar>(0.5);
  const Scalar infinity = broadcast<Scalar>(std::numeric_limits<double>::infinity());
  // The rounding of a sum of n terms.
  const Scalar rounding = broadcast<Scalar>((8 + r.n / 64.0) * epsilon_v<Scalar>);
  Scalar low = -infinity, high = infinity, low_excess = zero, high_excess = zero;
  Scalar width = infinity, earlier = infinity, stride = zero;
  Scalar nu = start, target = zero, slope = zero, excess = zero, size = zero;
  auto found = broadcast_mask<Scalar>(false);
  for (int step = 0; step < kRootSteps && any(open); ++step) {
    const RowValue<Scalar> now = row_value(r, nu, open, variables);
    if (step == 0) target = minimum(maximum(now.value, r.row_lower), r.row_upper);
    // A problem that is done keeps its values: its variables need not be listed.
    excess = select(open, now.value - target, excess), slope = select(open, now.slope, slope);
    size = select(open, now.size + absolute(target), size);
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
    if constexpr (std::is_same_v<Variables, Listed>) {
      if (all(either(up, negate(open)))) variables.advance();
    }
  }
  const Scalar rest = excess / slope;
  const auto fine = absolute(rest) <= absolute(nu) * broadcast<Scalar>(16 * epsilon_v<Scalar>);
  return {nu, select(fine, rest, zero), target, size, found};
}

/// As above, among all variables or those that matter. `numbers`, `more`: [np] of any content.
template <class Team, class Scalar>
TORCHQP_HD_CALL RowRoot<Scalar> find_root(const Team& /*team*/, const SingleRow<Scalar>& r,
                                          const RowStart<Scalar>& start, Scalar* numbers,
                                          Scalar* more) {
  if constexpr (std::is_same_v<Team, SerialTeam>) {  // the lanes of others would share a list
    static_assert(sizeof(Scalar) >= sizeof(int32_t));
    if (r.n >= kListedFrom && all(either(start.falls, negate(start.usable)))) {
      const Listed listed(r.n, reinterpret_cast<int32_t*>(numbers),
                          reinterpret_cast<int32_t*>(more));
      return find_root_among(listed, r, start.nu, start.usable);
    }
  }
  return find_root_among(All(r.n), r, start.nu, start.usable);
}

}  // namespace detail

TORCHQP_END_ISA_NAMESPACE
}  // namespace torchqp::qp
