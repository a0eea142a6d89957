#pragma once
// One problem (or one pack of problems) from data to solution: which form, how often, and the
// verdict.

#include "qp/check_data.hpp"
#include "qp/run_form.hpp"
#include "qp/scaling.hpp"
#include "qp/single_row.hpp"

namespace torchqp::qp {
TORCHQP_BEGIN_ISA_NAMESPACE
namespace detail {

/// Writes the iterate of the problems in `which` to the result, in the caller's units.
template <class Team, class Scalar>
TORCHQP_HD_CALL void store(const Team& team, Solver<Scalar>& solver, MaskOf<Scalar> which,
                           const Residuals<Scalar>& r, Scalar status, bool dual) {
  const Shape& s = solver.data.shape;
  const Iterate<Scalar>& it = solver.it;
  const Result<Scalar>& out = solver.result;
  const Scalar inverse_cost = reciprocal(solver.scale.cost[0]), one = broadcast<Scalar>(1);
  const auto put = [&](Scalar& to, Scalar value) { to = select(which, value, to); };
  Scalar z_size[1] = {broadcast<Scalar>(0)};
  team.for_each(s.np, [&](int i) { z_size[0] = max_norm(z_size[0], it.z[i]); });
  team.template max_all<Site::kFinish>(z_size);
  const Scalar rounding = z_size[0] * broadcast<Scalar>(8.0 * epsilon_v<Scalar>);
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
    direct = solve_single_row(team, solver.data, solver.settings, work.dz, work.Qz, solver.result);
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
  const Scalar nan = broadcast<Scalar>(std::numeric_limits<double>::quiet_NaN());
  Residuals<Scalar> unknown{nan, nan, nan, nan, zero, zero, zero, zero, zero, zero, zero};
  team.for_each(s.np, [&](int i) { solver.it.best_z[i] = zero; });
  team.for_each(s.pp, [&](int i) { solver.it.best_nu[i] = zero; });
  team.for_each(s.k, [&](int i) {
    solver.it.active[i] = zero, solver.it.best_active[i] = zero, solver.it.best_equal[i] = zero;
    if (s.upper) solver.it.best_upper[i] = zero;
    if (s.lower) solver.it.best_lower[i] = zero;
  });
  detail::store(team, solver, negate(direct), unknown,
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
      if (solver.instead.overlays) {
        // The dual form's factor lay where this form worked.
        team.single([&] {
          Scalar& tag = solver.result.factor_tag[0];
          tag = minimum(tag, zero);
        });
      }
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
