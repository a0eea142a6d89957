#pragma once
// One problem (or one pack of problems) from data to solution: which form, how often, and the
// verdict.

#include "qp/check_data.hpp"
#include "qp/feasibility.hpp"
#include "qp/run_form.hpp"
#include "qp/scaling.hpp"
#include "qp/single_row.hpp"

namespace torchqp::qp {
TORCHQP_BEGIN_ISA_NAMESPACE
namespace detail {

/// Of a point that nothing is known of.
template <class Scalar>
TORCHQP_HD Residuals<Scalar> unknown_residuals() {
  const Scalar nan = broadcast<Scalar>(std::numeric_limits<double>::quiet_NaN()),
               zero = broadcast<Scalar>(0);
  return {nan, nan, nan, nan, zero, zero, zero, zero, zero, zero, zero, zero};
}

/// Writes the multipliers of the problems in `which` to the result, in the caller's units. Each lane
/// writes its own entries.
template <class Team, class Scalar>
TORCHQP_HD_CALL void store_multipliers(const Team& team, const Solver<Scalar>& solver,
                                       MaskOf<Scalar> which) {
  const Shape& s = solver.data.shape;
  const Iterate<Scalar>& it = solver.it;
  const Result<Scalar>& out = solver.result;
  const Scalar inverse_cost = reciprocal(solver.scale.cost[0]);
  team.for_each(s.pp, [&](int i) {
    const Scalar nu = (it.nu[i] * solver.scale.equality[i]) * inverse_cost;
    out.nu[i] = select(which, nu, out.nu[i]);
  });
  team.for_each(s.k, [&](int i) {
    const Scalar lam = (it.lam[i] * solver.scale.row[i]) * inverse_cost;
    out.lam[i] = select(which, lam, out.lam[i]);
  });
}

/// Writes the iterate of the problems in `which` to the result, in the caller's units. Each lane
/// writes its own entries.
template <class Team, class Scalar>
TORCHQP_HD_CALL void store(const Team& team, Solver<Scalar>& solver, MaskOf<Scalar> which,
                           const Residuals<Scalar>& r, Scalar status, bool dual) {
  const Shape& s = solver.data.shape;
  const Iterate<Scalar>& it = solver.it;
  const Result<Scalar>& out = solver.result;
  const Scalar one = broadcast<Scalar>(1);
  const auto put = [&](Scalar& to, Scalar value) { to = select(which, value, to); };
  team.for_each(s.np, [&](int i) { put(out.z[i], it.z[i] * solver.scale.variable[i]); });
  store_multipliers(team, solver, which);
  team.for_each(s.k, [&](int i) {
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
}

template <class Scalar>
TORCHQP_HD Scalar number(Status status) {
  return broadcast<Scalar>(static_cast<int>(status));
}

/// The status of a point: a certificate counts unless the point is a solution after all. What is
/// within the default tolerances is usable, however tight the caller's.
template <class Scalar>
TORCHQP_HD Scalar verdict(const Settings& settings, const Residuals<Scalar>& r,
                          const Outcome<Scalar>& outcome) {
  const Scalar merit = r.merit(settings);
  const auto limited = outcome.iterations >= broadcast<Scalar>(settings.max_iter);
  Scalar status = select(limited, number<Scalar>(Status::kMaxIterations),
                         number<Scalar>(Status::kNumericalError));
  const auto choose = [&](MaskOf<Scalar> where, Status value) {
    status = select(where, number<Scalar>(value), status);
  };
  choose(either(merit <= broadcast<Scalar>(kInaccurateMerit),
                r.merit(default_settings<Element<Scalar>>()) <= broadcast<Scalar>(1)),
         Status::kSolvedInaccurate);
  choose(outcome.dual_infeasible, Status::kDualInfeasible);
  choose(outcome.primal_infeasible, Status::kPrimalInfeasible);
  choose(merit <= broadcast<Scalar>(solved_merit_v<Scalar>), Status::kSolved);
  return status;
}

/// Where the residuals miss feasibility, or say nothing.
template <class Scalar>
TORCHQP_HD MaskOf<Scalar> misses_constraints(const Settings& settings, const Residuals<Scalar>& r) {
  return negate(r.primal <= fused(broadcast<Scalar>(settings.eps_rel), r.primal_reference,
                                  broadcast<Scalar>(settings.eps_abs)));
}

/// A form that iterates on z, for the problems that are not finished: from its set-up to results,
/// and to certificates where it ends without a solution.
///
///   in   dual_merit  of the result that is there
///   in   spent       iterations so far; returned with those from here added
template <class Team, class Scalar, class Form>
TORCHQP_HD_CALL Scalar run_primal(const Team& team, Solver<Scalar>& solver, Form& form, bool warm,
                                  bool keep_factor, MaskOf<Scalar> finished, Scalar dual_merit,
                                  Scalar spent) {
  const Shape& s = solver.data.shape;
  const Iterate<Scalar>& it = solver.it;
  const Settings& settings = solver.settings;
  const Result<Scalar>& out = solver.result;
  const Scalar zero = broadcast<Scalar>(0);
  const auto convex = form.setup(team);
  reset_iterate(team, s, it);
  const auto bent = both(negate(finished), negate(convex));
  store(team, solver, bent, unknown_residuals<Scalar>(), number<Scalar>(Status::kNotConvex), false);
  const auto frozen = either(finished, bent);
  if (all(frozen)) return spent;

  Outcome<Scalar> outcome;
  const Residuals<Scalar> r = run_form(team, solver, form, warm, keep_factor, frozen, outcome);
  if (prefers_dual(s)) {
    // Where Q is positive definite the objective has a bound, whatever overflowed.
    outcome.dual_infeasible = both(outcome.dual_infeasible, negate(solver.definite[0] > zero));
  }
  const Scalar merit = r.merit(settings);
  // The dual form's point stays where it is the better of two that both fall short.
  const auto proved = either(outcome.primal_infeasible, outcome.dual_infeasible);
  const auto taken = both(negate(frozen), either(proved, negate(dual_merit < merit)));
  store(team, solver, taken, r, verdict(settings, r, outcome), false);
  if (solver.instead.overlays) {
    // The dual form's factor lay where this form worked.
    team.single([&] { out.factor_tag[0] = minimum(out.factor_tag[0], zero); });
  }
  spent = select(frozen, spent, spent + outcome.iterations);

  const auto limited = outcome.iterations >= broadcast<Scalar>(settings.max_iter);
  const auto doubtful =
      both(both(negate(frozen), negate(either(proved, limited))), misses_constraints(settings, r));
  if (!any(doubtful)) return spent;
  Outcome<Scalar> sought;
  seek_certificate(team, solver, form, doubtful, sought);
  net_multipliers(team, s, it);  // after it no lane asks any more whether the form is soft
  store_multipliers(team, solver, sought.primal_infeasible);
  team.single([&] {
    form.set_soft(false);
    const Scalar infeasible = number<Scalar>(Status::kPrimalInfeasible);
    out.status[0] = select(sought.primal_infeasible, infeasible, out.status[0]);
    out.factor_tag[0] = select(doubtful, zero, out.factor_tag[0]);
  });
  if (keep_factor && !all(either(frozen, doubtful))) {
    form.form_base(team);
    copy_best(team, s, it, negate(doubtful), false);
    form.factor_active(team, it);
  }
  return select(doubtful, spent + sought.iterations, spent);
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
/// Cost:    at most max_iter iterations in each of 2 forms x 3 stages, and kPivotRounds rounds before
///          and after each stage of the dual form; never allocates.
template <class Team, class Scalar>
TORCHQP_HD_CALL Prepared solve(const Team& team, Solver<Scalar>& solver, bool warm,
                               Prepared prepared, bool again, bool keep_factor) {
  const Shape& s = solver.data.shape;
  const Scalar zero = broadcast<Scalar>(0), one = broadcast<Scalar>(1);
  auto direct = broadcast_mask<Scalar>(false);
  if (has_single_row(s)) {
    const Iterate<Scalar>& work = solver.it;
    direct = solve_single_row(team, solver.data, solver.settings, prepared != Prepared::kNothing,
                              work.Atnu, work.dz, work.Qz, work.r_d, work.Ctlam, solver.result);
    if (all(direct)) return Prepared::kFactor;  // matrices as they were loaded
    prepared = Prepared::kNothing;
  }
  if (prepared == Prepared::kNothing) {
    const auto finite = detail::finite_matrices(team, solver.data);
    team.single([&] { solver.finite[0] = select(finite, one, zero); });
    solver.scale.reset(team, s);
  }
  const detail::VectorFaults<Scalar> faults = detail::check_vectors(team, solver.data);
  const auto invalid = either(negate(solver.finite[0] > zero), faults.invalid);
  const auto empty = both(faults.empty, negate(invalid));
  auto finished = either(direct, either(invalid, empty));
  const Outcome<Scalar> fresh;
  reset_iterate(team, s, solver.it);
  team.for_each(s.np, [&](int i) { solver.it.best_z[i] = zero; });
  team.for_each(s.pp, [&](int i) { solver.it.best_nu[i] = zero; });
  team.for_each(s.k, [&](int i) {
    solver.it.active[i] = zero, solver.it.best_active[i] = zero, solver.it.best_equal[i] = zero;
    if (s.upper) solver.it.best_upper[i] = zero;
    if (s.lower) solver.it.best_lower[i] = zero;
  });
  detail::store(team, solver, negate(direct), detail::unknown_residuals<Scalar>(),
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
      detail::store(team, solver, usable, r, detail::verdict(solver.settings, r, outcome), true);
      dual_merit = select(usable, merit, dual_merit);
      spent = select(frozen, spent, outcome.iterations);
      finished = either(finished, both(usable, merit <= broadcast<Scalar>(solved_merit_v<Scalar>)));
    }
  }

  const bool intact = prefers_dual(s) && all(finished);  // no other form rescales the matrices
  if (!all(finished)) {
    equilibrate(team, solver.data, solver.scale, zero, solver.ruiz);
    spent = s.diagonal ? detail::run_primal(team, solver, solver.diagonal, warm, false, finished,
                                            dual_merit, spent)
                       : detail::run_primal(team, solver, solver.condensed, warm, keep_factor,
                                            finished, dual_merit, spent);
  }
  team.single([&] { solver.result.iterations[0] = spent; });
  team.template sync<Site::kFinish>();
  if (!intact) return Prepared::kNothing;
  return formed ? Prepared::kSchur : Prepared::kFactor;
}

TORCHQP_END_ISA_NAMESPACE
}  // namespace torchqp::qp
