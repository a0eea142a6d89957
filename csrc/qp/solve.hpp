#pragma once
// One problem (or one pack of problems) from data to solution: which form, how often, and the
// verdict.

#include "core/status.hpp"
#include "qp/condensed_form.hpp"
#include "qp/diagonal_form.hpp"
#include "qp/dual_form.hpp"
#include "qp/polish.hpp"
#include "qp/scaling.hpp"

namespace torchqp::qp {
TORCHQP_BEGIN_ISA_NAMESPACE

/// Whether the dual form is tried first: rows only, and not many more of them than variables (then
/// condensing is cheaper).
TORCHQP_HD bool prefers_dual(const Shape& s) {
  return !s.bounds && !s.diagonal && s.m <= 2 * s.n;
}

/// The merit at which a point counts as solved: single precision keeps a margin for the rounding of
/// its own residuals.
template <class Scalar>
inline constexpr double solved_merit_v = sizeof(Element<Scalar>) == 8 ? 1.0 : 0.5;
/// The merit up to which a point is worth returning, as solved_inaccurate.
inline constexpr double kInaccurateMerit = 1e3;

/// What a solve leaves, in the caller's units.
template <class Scalar>
struct Result {
  Scalar *z, *nu, *lam, *active;  ///< [np] [pp] [k] net, [k]
  Scalar* residuals;              ///< [4]
  Scalar *status, *iterations;    ///< [1] Status as a number; [1]
  /// [1] which form's factor belongs to this solution: 1 the dual form's, -(cost scale) the
  /// condensed form's, 0 none: the diagonal form keeps no factor.
  Scalar* factor_tag;

  TORCHQP_HD Result(const Shape& s, Arena<Scalar>& arena)
      : z(arena.take(s.np)),
        nu(arena.take(s.pp)),
        lam(arena.take(s.k)),
        active(arena.take(s.k)),
        residuals(arena.take(4)),
        status(arena.take(1)),
        iterations(arena.take(1)),
        factor_tag(arena.take(1)) {}
};

/// All memory of one solve. Fill data (and the warm start), call solve, read result; the data are
/// consumed.
template <class Scalar>
struct Solver {
  Data<Scalar> data;
  Scale<Scalar> scale;
  Iterate<Scalar> it;
  Result<Scalar> result;
  Scalar *warm_z, *warm_nu, *warm_lam;  ///< [np] [pp] [k] where to start, read when `warm`
  Scalar* ruiz;
  Settings settings;
  Arena<Scalar> nowhere;  ///< gives a form that is never used no memory
  DualForm<Scalar> dual;
  CondensedForm<Scalar> condensed;
  DiagonalForm<Scalar> diagonal;

  /// A form has memory only where it may be used.
  TORCHQP_HD Solver(const Shape& s, const Settings& choice, Arena<Scalar>& arena)
      : data(s, arena),
        scale(s, arena),
        it(data, arena),
        result(s, arena),
        warm_z(arena.take(s.np)),
        warm_nu(arena.take(s.pp)),
        warm_lam(arena.take(s.k)),
        ruiz(arena.take(2 * (int64_t{s.np} + s.mp + s.pp))),
        settings(choice),
        dual(data, scale, settings, prefers_dual(s) ? arena : nowhere),
        condensed(data, scale, settings, s.diagonal ? nowhere : arena),
        diagonal(data, scale, settings, s.diagonal ? arena : nowhere) {}
  Solver(const Solver&) = delete;  // the forms refer to data and scale
  Solver& operator=(const Solver&) = delete;
};

/// Scalars that a Solver takes.
template <class Team, class Scalar>
TORCHQP_HD int64_t solver_size(const Dims& dims) {
  Arena<Scalar> counter;
  const Solver<Scalar> solver(Shape::of<Team, Scalar>(dims), Settings{}, counter);
  return counter.used;
}

namespace detail {

/// Problems whose data are not finite or whose bounds cross.
template <class Scalar>
TORCHQP_HD_CALL MaskOf<Scalar> invalid_data(const Data<Scalar>& data) {
  const Shape& s = data.shape;
  auto valid = broadcast_mask<Scalar>(true);
  const auto check = [&](const Scalar* values, int64_t count) {
    // x - x is 0 for finite x and NaN otherwise: one sum over the array tells.
    Scalar sum = broadcast<Scalar>(0);
    for (int64_t i = 0; i < count; ++i) sum = sum + (values[i] - values[i]);
    valid = both(valid, sum == broadcast<Scalar>(0));
  };
  check(data.Q, s.diagonal ? s.np : int64_t{s.np} * s.np);
  check(data.q, s.np);
  check(data.G, int64_t{s.mp} * s.np);
  check(data.A, int64_t{s.pp} * s.np);
  check(data.b, s.pp);
  for (int i = 0; i < s.k; ++i) {
    const auto ordered = data.lower[i] <= data.upper[i];  // false for NaN
    const auto beyond =
        either(data.upper[i]<broadcast<Scalar>(-std::numeric_limits<Element<Scalar>>::max()),
                             data.lower[i]>
                   broadcast<Scalar>(std::numeric_limits<Element<Scalar>>::max()));
    const auto number = both(data.lower[i] == data.lower[i], data.upper[i] == data.upper[i]);
    valid = both(valid, either(ordered, both(beyond, number)));
  }
  return negate(valid);
}

/// Problems with an upper side at -inf or a lower side at +inf.
template <class Scalar>
TORCHQP_HD_CALL MaskOf<Scalar> empty_sides(const Data<Scalar>& data) {
  auto empty = broadcast_mask<Scalar>(false);
  const Scalar most = broadcast<Scalar>(std::numeric_limits<Element<Scalar>>::max());
  for (int i = 0; i < data.shape.k; ++i) {
    empty = either(empty, either(data.upper[i]<-most, data.lower[i]> most));
  }
  return empty;
}

/// Stages of one form: the tolerance first, then tighter where the active set did not come out.
template <class Team, class Scalar, class Form>
TORCHQP_HD_CALL Residuals<Scalar> run_form(const Team& team, Solver<Scalar>& solver, Form& form,
                                           bool warm, bool keep_factor, MaskOf<Scalar> frozen,
                                           Outcome<Scalar>& outcome) {
  const Shape& s = solver.data.shape;
  const Iterate<Scalar>& it = solver.it;
  const Settings& settings = solver.settings;
  if (warm) {
    const Scalar cost = solver.scale.cost[0];
    team.for_each(s.np, [&](int i) { it.z[i] = solver.warm_z[i] / solver.scale.variable[i]; });
    team.for_each(s.pp,
                  [&](int i) { it.nu[i] = solver.warm_nu[i] * cost / solver.scale.equality[i]; });
    team.for_each(s.k, [&](int i) { it.lam[i] = solver.warm_lam[i] * cost / solver.scale.row[i]; });
    team.template sync<Site::kStart>();
    warm_start(team, s, form, it);
  } else {
    cold_start(team, s, form, it);
  }
  auto open = negate(frozen);
  bool factored = false;
  constexpr double kTargets[] = {1.0, 1e-3};
  const Scalar limit = broadcast<Scalar>(settings.max_iter);
  for (const double target : kTargets) {
    const Scalar before = outcome.iterations;
    interior_point(team, s, form, it, target, settings.max_iter, negate(open), outcome);
    form.recover(team, it);
    guess_active(team, s, it);
    copy_best(team, s, it, open, true);
    // A problem that ran into the limit is not worked on further: the limit is the caller's word.
    const auto cut =
        both(outcome.iterations - before >= limit, outcome.merit > broadcast<Scalar>(1));
    open =
        both(open, negate(either(cut, either(outcome.primal_infeasible, outcome.dual_infeasible))));
    open = both(open, is_finite(outcome.merit));
    if (!settings.polish || !any(open)) break;
    const bool everyone = target == kTargets[0] && all(either(open, frozen));
    open = both(open,
                negate(polish(team, solver.data, solver.scale, settings, form, it, open, outcome)));
    // The last round factored the sets that were accepted in it and before it.
    factored = everyone && !any(open);
    if (!any(open)) break;
  }
  copy_best(team, s, it, negate(frozen), false);
  if (keep_factor && !factored) form.factor_active(team, it);
  return kkt_residuals(team, solver.data, solver.scale, it);
}

/// Writes the iterate of the problems in `which` to the result, in the caller's units.
template <class Team, class Scalar>
TORCHQP_HD_CALL void store(const Team& team, Solver<Scalar>& solver, MaskOf<Scalar> which,
                           const Residuals<Scalar>& r, Scalar status, bool dual) {
  const Shape& s = solver.data.shape;
  const Iterate<Scalar>& it = solver.it;
  const Result<Scalar>& out = solver.result;
  const Scalar inverse_cost = reciprocal(solver.scale.cost[0]), one = broadcast<Scalar>(1);
  const auto put = [&](Scalar& to, Scalar value) { to = select(which, value, to); };
  Scalar z_size = broadcast<Scalar>(0);
  for (int i = 0; i < s.np; ++i) z_size = max_norm(z_size, it.z[i]);
  const Scalar rounding = z_size * broadcast<Scalar>(8.0 * epsilon_v<Scalar>);
  team.for_each(s.np, [&](int i) {
    Scalar z = it.z[i];
    if (s.bounds) {
      // Bounds are kept to the bit, and met to the bit where only rounding is between.
      const Scalar low = solver.data.lower[s.mp + i], high = solver.data.upper[s.mp + i];
      z = select(z <= low + rounding, low, z);
      z = select(z >= high - rounding, high, z);
    }
    put(out.z[i], z * solver.scale.variable[i]);
  });
  team.for_each(
      s.pp, [&](int i) { put(out.nu[i], it.nu[i] * (solver.scale.equality[i] * inverse_cost)); });
  team.for_each(s.k, [&](int i) {
    put(out.lam[i], it.lam[i] * (solver.scale.row[i] * inverse_cost));
    // An equality among the constraints counts for the side that its multiplier pushes on.
    const Scalar side = select(it.lam[i] < broadcast<Scalar>(0), -one, one);
    put(out.active[i], select(it.equal[i] > broadcast<Scalar>(0), side, it.active[i]));
  });
  team.single([&] {
    put(out.residuals[0], r.stationarity / (one + r.stationarity_reference));
    put(out.residuals[1], r.primal / (one + r.primal_reference));
    put(out.residuals[2], r.dual_sign / (one + r.dual_sign_reference));
    put(out.residuals[3], r.gap / (one + r.gap_reference));
    put(out.status[0], status);
    put(out.factor_tag[0], dual ? one : s.diagonal ? broadcast<Scalar>(0) : -solver.scale.cost[0]);
  });
  team.template sync<Site::kFinish>();
}

template <class Scalar>
TORCHQP_HD Scalar number(Status status) {
  return broadcast<Scalar>(static_cast<int>(status));
}

/// The status of a point: a certificate counts unless the point is a solution after all.
template <class Scalar>
TORCHQP_HD Scalar verdict(const Settings& settings, Scalar merit, const Outcome<Scalar>& outcome) {
  const auto limited = outcome.iterations >= broadcast<Scalar>(settings.max_iter);
  Scalar status = select(limited, number<Scalar>(Status::kMaxIterations),
                         number<Scalar>(Status::kNumericalError));
  const auto choose = [&](MaskOf<Scalar> where, Status value) {
    status = select(where, number<Scalar>(value), status);
  };
  choose(merit <= broadcast<Scalar>(kInaccurateMerit), Status::kSolvedInaccurate);
  choose(outcome.dual_infeasible, Status::kDualInfeasible);
  choose(outcome.primal_infeasible, Status::kPrimalInfeasible);
  choose(merit <= broadcast<Scalar>(solved_merit_v<Scalar>), Status::kSolved);
  return status;
}

}  // namespace detail

/// Solves the problem in solver.data.
///
///   in/out  solver        data filled, consumed; result written for every problem of the pack
///   in      warm          start from solver.warm_*
///   in      keep_factor   leave the factor of the final active set in the form that
///                         result.factor_tag names
///
/// Team:    every lane calls with equal arguments; the data are visible to all on entry; ends with
///          a sync.
/// Bitwise: equal for every team size; a problem's result does not depend on its company.
/// Cost:    at most 2 forms x 2 stages x max_iter iterations; never allocates.
template <class Team, class Scalar>
TORCHQP_HD_CALL void solve(const Team& team, Solver<Scalar>& solver, bool warm, bool keep_factor) {
  const Shape& s = solver.data.shape;
  const Scalar zero = broadcast<Scalar>(0);
  const auto invalid = detail::invalid_data(solver.data);
  const auto empty = both(detail::empty_sides(solver.data), negate(invalid));
  auto finished = either(invalid, empty);
  const Outcome<Scalar> fresh{broadcast<Scalar>(std::numeric_limits<Element<Scalar>>::max()), zero,
                              broadcast_mask<Scalar>(false), broadcast_mask<Scalar>(false)};
  solver.scale.reset(team, s);
  reset_iterate(team, s, solver.it);
  const Scalar nan = broadcast<Scalar>(std::numeric_limits<double>::quiet_NaN());
  Residuals<Scalar> unknown{nan, nan, nan, nan, zero, zero, zero, zero, zero, zero};
  team.for_each(s.np, [&](int i) { solver.it.best_z[i] = zero, solver.result.z[i] = zero; });
  team.for_each(s.pp, [&](int i) { solver.it.best_nu[i] = zero, solver.result.nu[i] = zero; });
  team.for_each(s.k, [&](int i) {
    solver.it.active[i] = zero, solver.it.best_active[i] = zero, solver.it.best_equal[i] = zero;
    solver.it.best_upper[i] = zero, solver.it.best_lower[i] = zero;
    solver.result.lam[i] = zero, solver.result.active[i] = zero;
  });
  team.template sync<Site::kFinish>();
  detail::store(team, solver, broadcast_mask<Scalar>(true), unknown,
                select(invalid, detail::number<Scalar>(Status::kInvalidInput),
                       detail::number<Scalar>(Status::kPrimalInfeasible)),
                false);

  Scalar dual_merit = fresh.merit, spent = zero;
  if (prefers_dual(s)) {
    Outcome<Scalar> outcome = fresh;
    const auto definite = solver.dual.setup(team, solver.it);
    reset_iterate(team, s, solver.it);
    const auto frozen = either(finished, negate(definite));
    if (!all(frozen)) {
      const Residuals<Scalar> r =
          detail::run_form(team, solver, solver.dual, warm, keep_factor, frozen, outcome);
      if (keep_factor) solver.dual.unscale_factor(team);
      const Scalar merit = r.merit(solver.settings);
      const auto usable = both(negate(frozen), is_finite(merit));
      detail::store(team, solver, usable, r, detail::verdict(solver.settings, merit, outcome),
                    true);
      dual_merit = select(usable, merit, dual_merit);
      spent = select(frozen, spent, outcome.iterations);
      finished = either(finished, both(usable, merit <= broadcast<Scalar>(solved_merit_v<Scalar>)));
    }
  }

  if (!all(finished)) {
    Outcome<Scalar> outcome = fresh;
    equilibrate(team, solver.data, solver.scale, zero, solver.ruiz);
    const auto convex = s.diagonal ? solver.diagonal.setup(team) : solver.condensed.setup(team);
    reset_iterate(team, s, solver.it);
    const auto bent = both(negate(finished), negate(convex));
    detail::store(team, solver, bent, unknown, detail::number<Scalar>(Status::kNotConvex), false);
    const auto frozen = either(finished, bent);
    if (!all(frozen)) {
      const Residuals<Scalar> r =
          s.diagonal ? detail::run_form(team, solver, solver.diagonal, warm, false, frozen, outcome)
                     : detail::run_form(team, solver, solver.condensed, warm, keep_factor, frozen,
                                        outcome);
      const Scalar merit = r.merit(solver.settings);
      // The dual form's point stays where it is the better of two that both fall short.
      const auto proved = either(outcome.primal_infeasible, outcome.dual_infeasible);
      const auto taken = both(negate(frozen), either(proved, negate(dual_merit < merit)));
      detail::store(team, solver, taken, r, detail::verdict(solver.settings, merit, outcome),
                    false);
      spent = select(frozen, spent, spent + outcome.iterations);
    }
  }
  team.single([&] { solver.result.iterations[0] = spent; });
  team.template sync<Site::kFinish>();
}

TORCHQP_END_ISA_NAMESPACE
}  // namespace torchqp::qp
