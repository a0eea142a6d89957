#pragma once
// Principal pivoting: the dual form's problem as one of complementarity,
//
//   y = y0 - T lam,   lam_i >= 0 where y_i is at its upper side, <= 0 at its lower side, else 0.
//
// A guess of the rows that hold gives lam by one factorization of T on them; rows whose multiplier
// has the wrong sign are released, violated ones added, all at once (Portugal, Judice and Vicente,
// Math. Comp. 63, 1994, block principal pivoting). Where that stops gaining, only the worst are
// exchanged. Most problems take four to nine rounds, each a fraction of an interior-point
// iteration, and end on the exact active set; for the others, degenerate ones mostly, the interior
// point follows.

#include "qp/dual_form.hpp"
#include "qp/polish.hpp"

namespace torchqp::qp {
TORCHQP_BEGIN_ISA_NAMESPACE

/// Rounds at most. Of those that settle the slowest were seen to take 13 (n = m = 10 to 200).
inline constexpr int kPivotRounds = 24;
/// Rounds without a new least number of errors after which only the worst rows are exchanged.
inline constexpr int kPivotPatience = 3;
/// Rounds without a new least number of errors after which a problem is given up: of 256 problems
/// with n = m = 10, 6 were given up at 4 rounds, none at 6.
inline constexpr int kPivotStall = 6;
/// Then the rows whose error is at least this share of the worst of its kind are exchanged.
inline constexpr double kPivotShare = 0.5;

namespace detail {

/// Where each problem of the pack stands in its pivoting.
template <class Scalar>
struct PivotState {
  Scalar fewest;        ///< errors in the best round
  Scalar waited;        ///< rounds since
  MaskOf<Scalar> open;  ///< neither settled nor given up
};

/// What solve_held found.
template <class Scalar>
struct Held {
  Scalar dropped;           ///< rows that depend on others
  Scalar lam_size, y_size;  ///< largest entry of it.lam and it.y, at least 1
};

/// it.lam and it.y for the rows that hold, it.active. Dependent rows are taken out of it.active, so
/// that the factor is no longer that of it.active.
///
/// Team: every lane calls and sees its own entries of it.active on entry; ends with a sync.
template <class Team, class Scalar>
TORCHQP_HD_CALL Held<Scalar> solve_held(const Team& team, const DualForm<Scalar>& form,
                                        const Iterate<Scalar>& it) {
  const Shape& s = form.data.shape;
  const DualFactor<Scalar>& f = form.schur.factor;
  const Scalar zero = broadcast<Scalar>(0), one = broadcast<Scalar>(1);
  form.schur.factor_held(team, it.active);
  const int length = f.held.template longest<Team>();
  Scalar* x = f.work_c + s.pp;
  const Scalar* inverse = f.inverse_K + s.pp;
  team.for_each(s.mp, [&](int i) { it.y[i] = form.y0[i] - it.active_bound(i); });
  team.template sync<Site::kPivotSolve>();
  team.for_each(length,
                [&](int r) { x[r] = select(f.held.has(r), gather(it.y, f.held.row[r]), zero); });
  team.template sync<Site::kPivotSolve>();
  linalg::solve_cholesky(team, form.schur.trailing(), f.rows, length, inverse, x);
  Scalar dropped[1] = {zero};
  team.for_each(length, [&](int r) {
    const auto out = both(f.held.has(r), negate(inverse[r] > zero));
    if (any(out)) {
      dropped[0] =
          dropped[0] + select(both(out, gather(it.equal, f.held.row[r]) == zero), one, zero);
    }
  });
  team.for_each(s.mp, [&](int i) {
    it.lam[i] = select(it.active[i] != zero, gather(x, f.held.place[i]), zero);
  });
  team.template add_all<Site::kPivotSolve>(dropped);
  if (any(dropped[0] > zero)) {
    team.for_each(s.mp, [&](int i) {
      const auto out = both(it.active[i] != zero, negate(gather(inverse, f.held.place[i]) > zero));
      it.active[i] = select(both(out, it.equal[i] == zero), zero, it.active[i]);
    });
  }
  linalg::multiply_symmetric(team, form.schur.T, s.mp, s.mp, it.lam, it.y);
  Scalar sizes[2] = {one, one};  // of lam and y
  team.for_each(s.mp, [&](int i) {
    it.y[i] = form.y0[i] - it.y[i];
    sizes[0] = max_norm(sizes[0], it.lam[i]);
    sizes[1] = max_norm(sizes[1], it.y[i]);
  });
  team.template max_all<Site::kPivotSolve>(sizes);
  return {dropped[0], sizes[0], sizes[1]};
}

/// Exchanges rows that are in error, for the problems that are open, and updates where they stand.
/// Dropped rows count as errors, set right already.
///
/// Team: every lane calls; the iterate is visible to all on entry; on return a lane sees its own
/// entries of it.active.
template <class Team, class Scalar>
TORCHQP_HD_CALL void exchange_rows(const Team& team, const Shape& s, const Iterate<Scalar>& it,
                                   const Held<Scalar>& held_rows, int stall,
                                   PivotState<Scalar>& state) {
  const Scalar zero = broadcast<Scalar>(0), one = broadcast<Scalar>(1);
  const Scalar tolerance = broadcast<Scalar>(polish_tolerance_v<Scalar>);
  const Scalar lam_tolerance = held_rows.lam_size * tolerance;
  const Scalar y_tolerance = held_rows.y_size * tolerance;
  // How wrong the multiplier of a row that holds is, and how far a row that does not is violated.
  const auto wrong = [&](int i) {
    return select(it.equal[i] > zero, zero, -(it.active[i] * it.lam[i]));
  };
  const auto violated = [&](const Side<Scalar>& side, int i) {
    const auto free = both(side.has[i] > zero, it.active[i] == zero);
    return select(free, broadcast<Scalar>(side.sign) * (it.y[i] - side.bound[i]), zero);
  };
  Scalar counts[1] = {zero}, worst[2] = {zero, zero};  // errors; the largest of lam and of y
  team.for_each(s.mp, [&](int i) {
    const auto count = [&](Scalar error, Scalar allowed) {
      counts[0] = counts[0] + select(error > allowed, one, zero);
    };
    const Scalar lam_error = wrong(i);
    count(lam_error, lam_tolerance);
    worst[0] = maximum(worst[0], lam_error);
    it.for_each_side([&](const Side<Scalar>& side) {
      const Scalar y_error = violated(side, i);
      count(y_error, y_tolerance);
      worst[1] = maximum(worst[1], y_error);
    });
    // An equality that was dropped as dependent and does not hold is beyond mending.
    if (!it.has_equal()) return;
    count(select(it.equal[i] > zero, absolute(it.y[i] - it.upper.bound[i]), zero), y_tolerance);
  });
  team.template add_all<Site::kPivotRevise>(counts);
  const Scalar errors = held_rows.dropped + counts[0];
  const auto gained = errors < state.fewest;
  state.fewest = select(gained, errors, state.fewest);
  state.waited = select(gained, zero, state.waited + one);
  const auto regular = is_finite(held_rows.lam_size + held_rows.y_size);
  state.fewest = select(regular, state.fewest, one);  // comparisons with NaN find no error
  state.open = both(state.open, both(errors > zero, regular));
  state.open = both(state.open, state.waited < broadcast<Scalar>(stall));
  const auto wholly = state.waited < broadcast<Scalar>(kPivotPatience);
  Scalar least_lam = lam_tolerance, least_y = y_tolerance;
  if (!all(wholly)) {
    const Scalar share = broadcast<Scalar>(kPivotShare);
    team.template max_all<Site::kPivotRevise>(worst);
    least_lam = select(wholly, least_lam, maximum(least_lam, share * worst[0]));
    least_y = select(wholly, least_y, maximum(least_y, share * worst[1]));
  }
  team.for_each(s.mp, [&](int i) {
    Scalar held = select(wrong(i) > least_lam, zero, it.active[i]);
    it.for_each_side([&](const Side<Scalar>& side) {
      held = select(violated(side, i) > least_y, broadcast<Scalar>(side.sign), held);
    });
    it.active[i] = select(state.open, held, it.active[i]);
  });
}

}  // namespace detail

/// Pivots from the guess in it.active until no row is in error.
///
///   in/out   it          it.active; on return, where settled, it.lam and it.y belong to it, and so
///                        does the form's factor of every problem
///   in       candidates  problems to work on
///   in/out   rounds      counts the rounds of each
///   returns              where the pivoting settled
///
/// Team:    every lane calls with equal arguments and sees its own entries of the guess on entry;
///          on return, of it.active.
/// Bitwise: equal for every team size; a problem's rounds do not depend on its company.
template <class Team, class Scalar>
TORCHQP_HD_CALL MaskOf<Scalar> pivot(const Team& team, const DualForm<Scalar>& form,
                                     const Iterate<Scalar>& it, int max_rounds, int stall,
                                     MaskOf<Scalar> candidates, Scalar& rounds) {
  const Shape& s = form.data.shape;
  const Scalar one = broadcast<Scalar>(1), zero = broadcast<Scalar>(0);
  detail::PivotState<Scalar> state{broadcast<Scalar>(std::numeric_limits<Element<Scalar>>::max()),
                                   zero, candidates};
  auto settled = broadcast_mask<Scalar>(false);
  for (int round = 0; round < max_rounds && any(state.open); ++round) {
    rounds = select(state.open, rounds + one, rounds);
    const detail::Held<Scalar> held = detail::solve_held(team, form, it);
    const auto before = state.open;
    detail::exchange_rows(team, s, it, held, stall, state);
    settled = either(settled, both(both(before, negate(state.open)), state.fewest == zero));
  }
  return settled;
}

/// The first guess: the sides that the solution without rows violates.
///
/// Team: every lane calls; a lane reads and writes its own entries only, without a sync.
template <class Team, class Scalar>
TORCHQP_HD_CALL void guess_violated(const Team& team, const DualForm<Scalar>& form,
                                    const Iterate<Scalar>& it) {
  const Scalar zero = broadcast<Scalar>(0);
  team.for_each(form.data.shape.mp, [&](int i) {
    Scalar held = it.equal[i];
    it.for_each_side([&](const Side<Scalar>& side) {
      const Scalar sign = broadcast<Scalar>(side.sign);
      const auto violated = both(side.has[i] > zero, sign * (form.y0[i] - side.bound[i]) > zero);
      held = select(violated, sign, held);
    });
    it.active[i] = held;
  });
}

/// The guess of a warm start in it.z and it.lam: sides whose multiplier exceeds their slack.
///
/// Team: every lane calls; the point is visible to all on entry; on return a lane sees its own
/// entries of it.active.
template <class Team, class Scalar>
TORCHQP_HD_CALL void guess_warm(const Team& team, const DualForm<Scalar>& form,
                                const Iterate<Scalar>& it) {
  const Shape& s = form.data.shape;
  const Scalar zero = broadcast<Scalar>(0);
  linalg::multiply<linalg::Into::kReplace>(team, form.data.G, s.np, s.mp, s.np, it.z, it.y);
  team.for_each(s.mp, [&](int i) {
    Scalar held = it.equal[i];
    it.for_each_side([&](const Side<Scalar>& side) {
      const Scalar sign = broadcast<Scalar>(side.sign);
      const Scalar slack = absolute(side.bound[i] - it.y[i]);
      held = select(both(side.has[i] > zero, sign * it.lam[i] > slack), sign, held);
    });
    it.active[i] = held;
  });
}

TORCHQP_END_ISA_NAMESPACE
}  // namespace torchqp::qp
