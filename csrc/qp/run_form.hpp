#pragma once
// One form from start to best points: stages of the interior point, each followed by an attempt to
// finish on the active set; for the dual form, pivoting and warm starts before them.

#include <type_traits>

#include "qp/pivoting.hpp"
#include "qp/polish.hpp"
#include "qp/solver.hpp"

namespace torchqp::qp {
TORCHQP_BEGIN_ISA_NAMESPACE
namespace detail {

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
/// Team: every lane calls and sees its own entries of the guess on entry, of the iterate on return.
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

/// Relative residual at which the dual form first tries to finish by pivoting. From 1e-3 on more
/// tries fail than iterations are saved, below 1e-5 the reverse (n = 10 to 100, m = n to 2 n).
inline constexpr double kEarlyResidual = 1e-4;

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
  const double least = settings.eps_rel > 1e-12 ? settings.eps_rel : 1e-12;
  const double targets[] = {kEarlyResidual / least, 1e2, 1.0, 1e-5};
  const Scalar limit = broadcast<Scalar>(settings.max_iter);
  const Scalar before = outcome.iterations;
  auto stalled = broadcast_mask<Scalar>(false);  // what stalls before a target misses the next too
  for (const double target : targets) {
    const bool early = target > 1.0;
    if (early && !(kPivots && settings.polish)) continue;
    if (target < targets[1] && early) continue;  // wide tolerances
    interior_point(team, s, form, it, target, settings.max_iter, either(negate(open), stalled),
                   outcome);
    stalled = both(open, outcome.merit > broadcast<Scalar>(target));
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
      open = both(open, negate(stalled));
    }
    if (!any(open)) return;
  }
}

/// Puts z on the bounds that hold where only rounding is between, and inside all others: bounds are
/// kept to the bit. Returns where anything changed. A bound that does not hold is left alone however
/// near it is: beside a variable of 1e6 the rounding of a float is half a unit.
///
/// Team: every lane calls and sees its own entries of z and it.active on entry; ends with a sync.
template <class Team, class Scalar>
TORCHQP_HD_CALL MaskOf<Scalar> snap_to_bounds(const Team& team, const Data<Scalar>& data,
                                              const Iterate<Scalar>& it) {
  const Shape& s = data.shape;
  Scalar z_size[1] = {broadcast<Scalar>(0)}, moved[1] = {broadcast<Scalar>(0)};
  team.for_each(s.np, [&](int i) { z_size[0] = max_norm(z_size[0], it.z[i]); });
  team.template max_all<Site::kFinish>(z_size);
  const Scalar rounding = z_size[0] * broadcast<Scalar>(8.0 * epsilon_v<Scalar>);
  const Scalar zero = broadcast<Scalar>(0);
  team.for_each(s.np, [&](int i) {
    const Scalar low = data.lower[s.mp + i], high = data.upper[s.mp + i];
    const Scalar held = it.active[s.mp + i];
    Scalar z = it.z[i];
    z = select(z <= low + select(held < zero, rounding, zero), low, z);
    z = select(z >= high - select(held > zero, rounding, zero), high, z);
    moved[0] = select(z == it.z[i], moved[0], broadcast<Scalar>(1));
    it.z[i] = z;
  });
  team.template max_all<Site::kFinish>(moved);
  return moved[0] > broadcast<Scalar>(0);
}

/// Leaves a constraint with two sides the multiplier of one of them, which is all that a solution
/// reports: an interior iterate has both, and with both another gap.
///
/// Team: every lane calls; a lane reads and writes its own entries only, without a sync.
template <class Team, class Scalar>
TORCHQP_HD_CALL void keep_net_multipliers(const Team& team, const Shape& s,
                                          const Iterate<Scalar>& it) {
  if (!it.has_equal()) return;
  const Scalar zero = broadcast<Scalar>(0);
  team.for_each(s.k, [&](int i) {
    const auto two = both(it.upper.has[i] > zero, it.lower.has[i] > zero);
    const Scalar net = it.upper.lam[i] - it.lower.lam[i];
    it.upper.lam[i] = select(two, maximum(net, zero), it.upper.lam[i]);
    it.lower.lam[i] = select(two, maximum(-net, zero), it.lower.lam[i]);
  });
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
  auto exact = outcome.polished;
  if (solver.data.shape.bounds) {
    exact = both(exact, negate(snap_to_bounds(team, solver.data, it)));
  }
  if (all(either(exact, frozen))) {
    net_multipliers(team, solver.data.shape, it);
    constraint_values(team, solver.data, it.z, it.y);
    return outcome.residuals;
  }
  keep_net_multipliers(team, solver.data.shape, it);
  Residuals<Scalar> r = kkt_residuals(team, solver.data, solver.scale, it);
  r.take(exact, outcome.residuals);
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
/// Team: every lane calls and sees its own entries of it.active on entry, of the iterate on return.
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
  solver.dual.direction_active(team, it);
  team.for_each(s.np, [&](int i) { it.z[i] = it.dz[i]; });
  team.for_each(s.pp, [&](int i) { it.nu[i] = it.dnu[i]; });
  team.for_each(s.mp, [&](int i) { it.lam[i] = it.dlam[i]; });
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
  const auto accepted = try_active(team, solver, formed, open, outcome);
  open = both(open, negate(accepted));
  Scalar revised[1] = {broadcast<Scalar>(0)};
  team.for_each(s.m, [&](int i) {
    const Scalar more = revised[0] + broadcast<Scalar>(1);
    revised[0] = select(it.active[i] != it.weight[i], more, revised[0]);
  });
  team.template add_all<Site::kPolishSet>(revised);
  const auto near = both(open, revised[0] <= broadcast<Scalar>(kNearlyRight));
  if (!any(near)) return accepted;
  const auto later = try_active(team, solver, formed, near, outcome);
  // The second try went over the points that the first had found.
  copy_best(team, s, it, accepted, false);
  constraint_values(team, solver.data, it.z, it.y);
  return either(accepted, later);
}

/// As run_form, for the dual form: tries the active set of a near start, then pivots, and iterates
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
  if (pivots && warm && solver.settings.near_start) {
    open = both(open, negate(finish_warm(team, solver, formed, open, outcome)));
  } else if (pivots && warm) {
    load_warm(team, solver);
    guess_warm(team, solver.dual, it);
  }
  if (any(open)) {
    if (!formed) solver.dual.schur.form(team, solver.data);
    formed = true;
    clear_multipliers(team, s, it);
    solver.dual.start(team, it);
  }
  // With more rows than the equalities leave freedom T is singular, and a vertex likely; with many
  // more, exchanging all rows that a guess from afar got wrong settles one problem in four at best.
  if (pivots && any(open) && (warm || !is_crowded(s.n, s.m, s.p))) {
    if (!warm) guess_violated(team, solver.dual, it);
    factored = all(either(open, frozen));
    const int stall = s.m > s.n - s.p ? kPivotPatience : kPivotStall;
    open = both(open, negate(finish_by_pivots(team, solver, open, stall, outcome)));
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

}  // namespace detail
TORCHQP_END_ISA_NAMESPACE
}  // namespace torchqp::qp
