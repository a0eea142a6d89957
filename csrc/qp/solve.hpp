#pragma once
// One problem (or one pack of problems) from data to solution: which form, how often, and the
// verdict.

#include "core/status.hpp"
#include "qp/condensed_form.hpp"
#include "qp/diagonal_form.hpp"
#include "qp/dual_form.hpp"
#include "qp/pivoting.hpp"
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

/// What of Q, G and A is in place when a solve begins or when it has ended.
enum class Prepared {
  kNothing,  ///< the caller's matrices are to be loaded
  kFactor,   ///< scaled matrices, the factors of Q and A Q^-1 A'
  kSchur,    ///< T too
};

/// What a solve leaves, in the caller's units.
template <class Scalar>
struct Result {
  Scalar *z, *nu, *lam, *active;  ///< [np] [pp] [k] net, [k]
  Scalar* slack;                  ///< [mp] h - G z
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
        slack(arena.take(s.mp)),
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
  Scalar *finite, *definite;  ///< [1] [1] 1 where Q, G and A are finite, and Q is safely positive
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
        finite(arena.take(1)),
        definite(arena.take(1)),
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

/// Whether all entries are finite, per problem.
template <class Scalar>
TORCHQP_HD_CALL MaskOf<Scalar> all_finite(const Scalar* values, int64_t count) {
  // x - x is 0 for finite x and NaN otherwise: one sum over the array tells.
  Scalar sum = broadcast<Scalar>(0);
  for (int64_t i = 0; i < count; ++i) sum = sum + (values[i] - values[i]);
  return sum == broadcast<Scalar>(0);
}

template <class Scalar>
TORCHQP_HD MaskOf<Scalar> finite_matrices(const Data<Scalar>& data) {
  const Shape& s = data.shape;
  const auto Q = all_finite(data.Q, s.diagonal ? s.np : int64_t{s.np} * s.np);
  const auto G = all_finite(data.G, int64_t{s.mp} * s.np);
  return both(both(Q, G), all_finite(data.A, int64_t{s.pp} * s.np));
}

/// Problems whose vectors are finite, with sides that do not cross.
template <class Scalar>
TORCHQP_HD_CALL MaskOf<Scalar> valid_vectors(const Data<Scalar>& data) {
  const Shape& s = data.shape;
  auto valid = both(all_finite(data.q, s.np), all_finite(data.b, s.pp));
  const Scalar most = broadcast<Scalar>(std::numeric_limits<Element<Scalar>>::max());
  for (int i = 0; i < s.k; ++i) {
    const auto ordered = data.lower[i] <= data.upper[i];  // false for NaN
    const auto beyond = either(data.upper[i]<-most, data.lower[i]> most);
    const auto number = both(data.lower[i] == data.lower[i], data.upper[i] == data.upper[i]);
    valid = both(valid, either(ordered, both(beyond, number)));
  }
  return valid;
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

/// The warm start in the units of the solver, in it.z, it.nu and it.lam.
///
/// Team: every lane calls; ends with a sync.
template <class Team, class Scalar>
TORCHQP_HD_CALL void load_warm(const Team& team, const Solver<Scalar>& solver) {
  const Shape& s = solver.data.shape;
  const Iterate<Scalar>& it = solver.it;
  const Scalar cost = solver.scale.cost[0];
  team.for_each(s.np, [&](int i) { it.z[i] = solver.warm_z[i] / solver.scale.variable[i]; });
  team.for_each(s.pp,
                [&](int i) { it.nu[i] = solver.warm_nu[i] * cost / solver.scale.equality[i]; });
  team.for_each(s.k, [&](int i) { it.lam[i] = solver.warm_lam[i] * cost / solver.scale.row[i]; });
  team.template sync<Site::kStart>();
}

/// Pivots from the guess in it.active and polishes where that settles. Returns where the exact point
/// was accepted.
///
/// Team: every lane calls; the guess is visible to all on entry; ends with a sync.
template <class Team, class Scalar>
TORCHQP_HD_CALL MaskOf<Scalar> finish_by_pivots(const Team& team, Solver<Scalar>& solver,
                                                MaskOf<Scalar> candidates, int stall,
                                                Outcome<Scalar>& outcome) {
  const Iterate<Scalar>& it = solver.it;
  const int limit =
      solver.settings.max_iter < kPivotRounds ? solver.settings.max_iter : kPivotRounds;
  const auto settled = pivot(team, solver.dual, it, limit, stall, candidates, outcome.iterations);
  if (!any(settled)) return settled;
  assign_multipliers(team, solver.data.shape, it, settled);
  solver.dual.recover(team, it);
  solver.dual.schur.couple_held(team);
  return polish(team, solver.data, solver.scale, solver.settings, solver.dual, it, settled,
                Polish::kPrepared, outcome);
}

/// The interior point of one form: to the tolerance first, then tighter where the active set did
/// not come out. Works on the problems in `open`; their best points are in the best_ arrays.
template <class Team, class Scalar, class Form>
TORCHQP_HD_CALL void iterate_form(const Team& team, Solver<Scalar>& solver, Form& form, bool warm,
                                  MaskOf<Scalar> open, Outcome<Scalar>& outcome) {
  const Shape& s = solver.data.shape;
  const Iterate<Scalar>& it = solver.it;
  const Settings& settings = solver.settings;
  if (warm) {
    load_warm(team, solver);
    warm_start(team, s, form, it);
  } else {
    cold_start(team, s, form, it);
  }
  // The dual form tries to finish early, from a blurred guess: pivoting mends a few wrong rows for
  // less than an iteration costs.
  constexpr bool kPivots = std::is_same_v<Form, DualForm<Scalar>>;
  constexpr double kTargets[] = {1e2, 1.0, 1e-3};
  const Scalar limit = broadcast<Scalar>(settings.max_iter);
  const Scalar before = outcome.iterations;
  for (const double target : kTargets) {
    const bool early = target > 1.0;
    if (early && !(kPivots && settings.polish)) continue;
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
    if (!settings.polish || !any(open)) return;
    if constexpr (kPivots) {
      open = both(open, negate(finish_by_pivots(team, solver, open, kPivotPatience, outcome)));
    }
    if (!early) {
      open = both(open, negate(polish(team, solver.data, solver.scale, settings, form, it, open,
                                      Polish::kGuess, outcome)));
    }
    if (!any(open)) return;
  }
}

/// The best points and their residuals; factors their active sets where asked to.
///
/// Team: every lane calls; ends with a sync.
template <class Team, class Scalar, class Form>
TORCHQP_HD_CALL Residuals<Scalar> settle(const Team& team, Solver<Scalar>& solver, Form& form,
                                         bool factor, MaskOf<Scalar> frozen,
                                         const Outcome<Scalar>& outcome) {
  const Iterate<Scalar>& it = solver.it;
  copy_best(team, solver.data.shape, it, negate(frozen), false);
  if (factor) form.factor_active(team, it);
  if (all(either(outcome.polished, frozen))) {
    net_multipliers(team, solver.data.shape, it);
    constraint_values(team, solver.data, it.z, it.y);
    return outcome.residuals;
  }
  Residuals<Scalar> r = kkt_residuals(team, solver.data, solver.scale, it);
  r.take(outcome.polished, outcome.residuals);
  return r;
}

/// A whole run of one form over the problems that are not frozen; leaves the best points in the
/// iterate.
template <class Team, class Scalar, class Form>
TORCHQP_HD_CALL Residuals<Scalar> run_form(const Team& team, Solver<Scalar>& solver, Form& form,
                                           bool warm, bool keep_factor, MaskOf<Scalar> frozen,
                                           Outcome<Scalar>& outcome) {
  iterate_form(team, solver, form, warm, negate(frozen), outcome);
  return settle(team, solver, form, keep_factor, frozen, outcome);
}

/// Rows by which a warm start's active set may be off for the revised one to be tried like it.
inline constexpr int kNearlyRight = 2;

/// The point on the active set it.active, kept where it is the solution. Needs no T. Returns where;
/// elsewhere it.active is revised.
///
/// Team: every lane calls; it.active is visible to all on entry; ends with a sync.
template <class Team, class Scalar>
TORCHQP_HD_CALL MaskOf<Scalar> try_active(const Team& team, Solver<Scalar>& solver, bool formed,
                                          MaskOf<Scalar> candidates, Outcome<Scalar>& outcome) {
  const Shape& s = solver.data.shape;
  const Data<Scalar>& data = solver.data;
  const Iterate<Scalar>& it = solver.it;
  if (formed) {
    solver.dual.factor_active(team, it);
  } else {
    solver.dual.schur.factor_rows(team, data, it.active);
  }
  outcome.iterations =
      select(candidates, outcome.iterations + broadcast<Scalar>(1), outcome.iterations);
  // One Newton step from zero.
  team.for_each(s.np, [&](int i) { it.r_d[i] = data.q[i]; });
  team.for_each(s.pp, [&](int i) { it.r_p[i] = -data.b[i]; });
  team.for_each(s.mp, [&](int i) { it.y[i] = broadcast<Scalar>(0); });
  team.template sync<Site::kPolishStep>();
  solver.dual.direction_active(team, it);
  team.for_each(s.np, [&](int i) { it.z[i] = it.dz[i]; });
  team.for_each(s.pp, [&](int i) { it.nu[i] = it.dnu[i]; });
  team.for_each(s.mp, [&](int i) { it.lam[i] = it.dlam[i]; });
  team.template sync<Site::kPolishStep>();
  return polish(team, data, solver.scale, solver.settings, solver.dual, it, candidates,
                Polish::kOneSet, outcome);
}

/// Tries the active set of the warm start and, where few rows were wrong, the revised one: a start
/// that is near needs no T. Returns where that was the solution.
///
/// Team: every lane calls; ends with a sync.
template <class Team, class Scalar>
TORCHQP_HD_CALL MaskOf<Scalar> finish_warm(const Team& team, Solver<Scalar>& solver, bool formed,
                                           MaskOf<Scalar> open, Outcome<Scalar>& outcome) {
  const Shape& s = solver.data.shape;
  const Iterate<Scalar>& it = solver.it;
  load_warm(team, solver);
  guess_warm(team, solver.dual, it);
  team.for_each(s.mp, [&](int i) { it.weight[i] = it.active[i]; });
  team.template sync<Site::kPolishSet>();
  const auto accepted = try_active(team, solver, formed, open, outcome);
  open = both(open, negate(accepted));
  Scalar revised = broadcast<Scalar>(0);
  for (int i = 0; i < s.m; ++i) {
    revised = select(it.active[i] != it.weight[i], revised + broadcast<Scalar>(1), revised);
  }
  team.template sync<Site::kPolishSet>();
  const auto near = both(open, revised <= broadcast<Scalar>(kNearlyRight));
  if (!any(near)) return accepted;
  const auto later = try_active(team, solver, formed, near, outcome);
  // The second try went over the points that the first had found.
  copy_best(team, s, it, accepted, false);
  constraint_values(team, solver.data, it.z, it.y);
  return either(accepted, later);
}

/// As run_form, for the dual form: tries the warm start's active set, then pivots, and iterates
/// where that does not settle.
///
///   in/out   formed  whether T is there
template <class Team, class Scalar>
TORCHQP_HD_CALL Residuals<Scalar> run_dual(const Team& team, Solver<Scalar>& solver, bool warm,
                                           bool keep_factor, MaskOf<Scalar> frozen, bool& formed,
                                           Outcome<Scalar>& outcome) {
  const Shape& s = solver.data.shape;
  const Iterate<Scalar>& it = solver.it;
  auto open = negate(frozen);
  const bool pivots = solver.settings.polish;
  bool factored = true;  // K is that of the sets of all problems that are done
  if (pivots && warm) {
    open = both(open, negate(finish_warm(team, solver, formed, open, outcome)));
  }
  if (any(open)) {
    if (!formed) solver.dual.schur.form(team, solver.data);
    formed = true;
    clear_multipliers(team, s, it);
    solver.dual.start(team, it);
  }
  if (pivots && any(open)) {
    if (!warm) guess_violated(team, solver.dual, it);
    factored = all(either(open, frozen));
    // With more rows than the equalities leave freedom T is singular, and a vertex likely.
    const bool singular = s.m > s.n - s.p;
    open = both(open, negate(finish_by_pivots(team, solver, open,
                                              singular ? kPivotPatience : kPivotStall, outcome)));
  }
  if (any(open)) {
    outcome.iterations = select(open, broadcast<Scalar>(0), outcome.iterations);
    iterate_form(team, solver, solver.dual, warm, open, outcome);
    return settle(team, solver, solver.dual, keep_factor, frozen, outcome);
  }
  if (!factored) return settle(team, solver, solver.dual, keep_factor, frozen, outcome);
  net_multipliers(team, s, it);
  return outcome.residuals;
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
  const Scalar unbounded = broadcast<Scalar>(std::numeric_limits<double>::infinity());
  team.for_each(s.mp, [&](int i) {
    const Scalar slack = (solver.data.upper[i] - it.y[i]) / solver.scale.row[i];
    put(out.slack[i], select(is_finite(solver.data.upper[i]), slack, unbounded));
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
///   in      prepared      what the last solve left of the same Q, G and A; then only the vectors
///                         are new
///   in      again         these Q, G and A will be used again, so that T is worth forming
///   in      keep_factor   leave the factor of the final active set in the form that
///                         result.factor_tag names
///   returns               what is left of Q, G and A for the next solve
///
/// Team:    every lane calls with equal arguments; the data are visible to all on entry; ends with
///          a sync.
/// Bitwise: equal for every team size; a problem's result does not depend on its company.
/// Cost:    at most 2 forms x 2 stages x max_iter iterations; never allocates.
template <class Team, class Scalar>
TORCHQP_HD_CALL Prepared solve(const Team& team, Solver<Scalar>& solver, bool warm,
                               Prepared prepared, bool again, bool keep_factor) {
  const Shape& s = solver.data.shape;
  const Scalar zero = broadcast<Scalar>(0), one = broadcast<Scalar>(1);
  if (prepared == Prepared::kNothing) {
    const auto finite = detail::finite_matrices(solver.data);
    team.template sync<Site::kStart>();
    team.single([&] { solver.finite[0] = select(finite, one, zero); });
    solver.scale.reset(team, s);
    team.template sync<Site::kStart>();
  }
  const auto invalid = negate(both(solver.finite[0] > zero, detail::valid_vectors(solver.data)));
  const auto empty = both(detail::empty_sides(solver.data), negate(invalid));
  auto finished = either(invalid, empty);
  const Outcome<Scalar> fresh;
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
  bool formed = prepared == Prepared::kSchur;
  if (prefers_dual(s)) {
    Outcome<Scalar> outcome = fresh;
    if (prepared == Prepared::kNothing) {
      const auto definite = solver.dual.setup(team);
      team.single([&] { solver.definite[0] = select(definite, one, zero); });
    }
    solver.dual.scale_sides(team);
    if (!formed && again) {
      solver.dual.schur.form(team, solver.data);
      formed = true;
    }
    const auto frozen = either(finished, negate(solver.definite[0] > zero));
    if (!all(frozen)) {
      const Residuals<Scalar> r =
          detail::run_dual(team, solver, warm, keep_factor, frozen, formed, outcome);
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

  const bool intact = prefers_dual(s) && all(finished);  // no other form rescales the matrices
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
  if (!intact) return Prepared::kNothing;
  return formed ? Prepared::kSchur : Prepared::kFactor;
}

TORCHQP_END_ISA_NAMESPACE
}  // namespace torchqp::qp
