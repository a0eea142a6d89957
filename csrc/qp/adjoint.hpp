#pragma once
// The linearised KKT system of one solved problem, for a given active set: derivatives of the
// solution in either direction.
//
//   [ Q    A'   C_I' ] [ d_z     ]     [ g_z     ]      C = (G, identity for bounds)
//   [ A    0    0    ] [ d_nu    ] = - [ g_nu    ]      I = the sides that hold
//   [ C_I  0    0    ] [ d_lam_I ]     [ g_lam_I ]
//
// The matrix is symmetric, so that the adjoint (OptNet, eq. 7, in symmetric form), the
// tangent and the second derivatives are all this one solve. Where it is singular (dependent active
// sides, directions that nothing holds) the part of g that no d can meet is left out, which `info`
// says, and of all d that meet the rest the answer is the one of least size: finite, and exact on
// what the system determines.

#include "qp/single_row_adjoint.hpp"
#include "qp/solve.hpp"

namespace torchqp::qp {
TORCHQP_BEGIN_ISA_NAMESPACE

/// Solves on one factor at most: the first solves, the others refine.
inline constexpr int kAdjointSteps = 6;
/// Whether a form's factor is that of the system itself, to rounding: the dual form's in double
/// precision. Others have finite weights, which leave an error that is worth another step.
template <class Scalar, class Form>
inline constexpr bool has_exact_factor_v = std::is_same_v<Form, DualForm<Scalar>> &&
                                           sizeof(Element<Scalar>) == 8;
/// Residual, in roundings of the terms it is made of, at which refinement ends.
template <class Scalar, class Form>
inline constexpr double adjoint_fine_v = has_exact_factor_v<Scalar, Form> ? 64.0 : 2.0;
/// Residual that the next step need not be looked at for: below rounding. A step is taken to shrink it
/// as the one before did.
template <class Scalar, class Form>
inline constexpr double adjoint_unseen_v = has_exact_factor_v<Scalar, Form> ? 1e-18 : 0.0;
/// Entries of d_z below this many roundings of its size are zero. Refinement leaves up to some 50
/// (with the dual form 100) of them at a vertex, where the derivative is zero.
template <class Scalar, class Form>
inline constexpr double rounding_v = std::is_same_v<Form, DualForm<Scalar>> ? 128.0 : 64.0;
/// Relative residual above which refinement has met a part of g outside the range of the matrix.
template <class Scalar>
inline constexpr double undetermined_v = sizeof(Element<Scalar>) == 8 ? 1e-7 : 1e-3;

/// All memory of one linearised solve. Fill data.{Q,G,A}, g_*, active, live, factor_tag (and
/// the factor of the form that it names); call solve_adjoint.
template <class Scalar>
struct Adjoint {
  Data<Scalar> data;
  Scale<Scalar> scale;
  Iterate<Scalar> it;
  Scalar *g_z, *g_nu, *g_lam;  ///< [np] [pp] [k]
  Scalar *d_z, *d_nu, *d_lam;  ///< [np] [pp] [k] the answer
  Scalar* active;              ///< [k] nonzero where a side holds
  Scalar* live;                ///< [1] 1 where the problem was solved
  Scalar* info;                ///< [1] out: 1 where a part of g was left out, else 0
  Scalar* factor_tag;          ///< [1] as Result::factor_tag; 0 where no factor is given
  Scalar* ruiz;
  Arena<Scalar> nowhere, instead;  ///< as in Solver
  DualForm<Scalar> dual;
  CondensedForm<Scalar> condensed;
  DiagonalForm<Scalar> diagonal;

  TORCHQP_HD Adjoint(const Shape& s, Arena<Scalar>& arena)
      : data(s, arena),
        scale(s, arena),
        it(data, false, arena),
        g_z(arena.take(s.np)),
        g_nu(arena.take(s.pp)),
        g_lam(arena.take(s.k)),
        d_z(arena.take(s.np)),
        d_nu(arena.take(s.pp)),
        d_lam(arena.take(s.k)),
        active(arena.take(s.k)),
        live(arena.take(1)),
        info(arena.take(1)),
        factor_tag(arena.take(1)),
        ruiz(arena.take(2 * (int64_t{s.np} + s.mp + s.pp))),
        instead(arena),
        dual(data, scale, Settings{}, prefers_dual(s) ? arena : nowhere),
        condensed(data, scale, Settings{},
                  s.diagonal       ? nowhere
                  : arena.overlays ? instead
                                   : arena),
        diagonal(data, scale, Settings{}, s.diagonal ? arena : nowhere) {
    arena.join(instead);
  }
  Adjoint(const Adjoint&) = delete;  // the forms refer to data and scale
  Adjoint& operator=(const Adjoint&) = delete;
};

/// The shape of a system: both sides of every row, and of every variable when there are bounds.
template <class Team, class Scalar>
TORCHQP_HD Shape adjoint_shape(Dims dims) {
  dims.h_lower = dims.h_upper = true;
  dims.lb = dims.ub = dims.bounds();
  return Shape::of<Team, Scalar>(dims);
}

/// Scalars that an Adjoint takes.
template <class Team, class Scalar>
TORCHQP_HD int64_t adjoint_size(const Dims& dims) {
  Arena<Scalar> counter;
  const Adjoint<Scalar> adjoint(adjoint_shape<Team, Scalar>(dims), counter);
  return counter.used;
}

namespace detail {

/// Size of the residuals relative to the terms they are made of, and the size that d_z has or could
/// have.
template <class Scalar>
struct AdjointError {
  Scalar relative, z_size;
};

/// r_d, r_p, y = the system's residuals at (z, nu, lam). `curvature` is the size of Q: where the
/// sides that hold leave d_z no freedom it is zero, and its rounding is that of g_z / curvature.
///
/// Team: every lane calls; the point is visible to all on entry; ends with a sync.
template <class Team, class Scalar>
TORCHQP_HD_CALL AdjointError<Scalar> adjoint_residuals(const Team& team, const Adjoint<Scalar>& a,
                                                       Scalar curvature) {
  const Shape& s = a.data.shape;
  const Iterate<Scalar>& it = a.it;
  const Scalar zero = broadcast<Scalar>(0);
  residual_terms(team, a.data, it);
  const Scalar tiny = broadcast<Scalar>(std::numeric_limits<Element<Scalar>>::min());
  Scalar norms[4] = {zero, tiny, zero, tiny};
  Scalar &d = norms[0], &d_size = norms[1], &c = norms[2], &c_size = norms[3];
  team.for_each(s.np, [&](int i) {
    it.r_d[i] = ((it.Qz[i] + a.g_z[i]) + it.Atnu[i]) + it.Ctlam[i];
    d = max_norm(d, it.r_d[i]);
    d_size = max_norm(max_norm(d_size, it.Qz[i]), a.g_z[i]);
    d_size = max_norm(max_norm(d_size, it.Atnu[i]), it.Ctlam[i]);
    c_size = max_norm(c_size, it.z[i]);
  });
  team.for_each(s.pp, [&](int i) {
    it.r_p[i] = it.r_p[i] + a.g_nu[i];
    c = max_norm(c, it.r_p[i]);
    c_size = max_norm(c_size, a.g_nu[i]);
  });
  team.for_each(s.k, [&](int i) {
    const auto holds = a.active[i] != zero;
    it.y[i] = select(holds, it.y[i] + a.g_lam[i], zero);
    c = max_norm(c, it.y[i]);
    c_size = max_norm(c_size, select(holds, a.g_lam[i], zero));
  });
  team.template max_all<Site::kAdjointStep>(norms);
  c_size = max_norm(c_size, d_size / curvature);
  return {max_norm(d / d_size, c / c_size), c_size};
}

/// Solves with the form's factor and refines; writes d of the problems in `which`. Data and g_ are
/// scaled by `scale`. Returns where the residual, which is left in it.r_d, it.r_p and it.y, stayed
/// large.
///
/// Team: every lane calls and sees its own entries of g_, active and scale on entry; ends with a
/// sync.
template <class Team, class Scalar, class Form>
TORCHQP_HD_CALL MaskOf<Scalar> refine_once(const Team& team, const Adjoint<Scalar>& a, Form& form,
                                           Scalar curvature, MaskOf<Scalar> which) {
  const Shape& s = a.data.shape;
  const Iterate<Scalar>& it = a.it;
  const Scalar zero = broadcast<Scalar>(0), half = broadcast<Scalar>(0.5);
  const Scalar inverse_cost = reciprocal(a.scale.cost[0]);
  // The residuals at zero are the right-hand side.
  team.for_each(s.np, [&](int i) { it.z[i] = zero, it.r_d[i] = a.g_z[i]; });
  team.for_each(s.pp, [&](int i) { it.nu[i] = zero, it.r_p[i] = a.g_nu[i]; });
  team.for_each(s.k, [&](int i) {
    it.lam[i] = zero, it.y[i] = select(a.active[i] != zero, a.g_lam[i], zero);
  });
  Scalar error = broadcast<Scalar>(std::numeric_limits<Element<Scalar>>::max());
  Scalar z_size = zero;
  auto moving = which, last = broadcast_mask<Scalar>(false);  // last: see adjoint_unseen_v
  for (int step = 0; step < kAdjointSteps && any(moving); ++step) {
    form.direction_active(team, it);
    const auto advance = [&](Scalar& x, Scalar dx) { x = select(moving, x + dx, x); };
    team.for_each(s.np, [&](int i) { advance(it.z[i], it.dz[i]); });
    team.for_each(s.pp, [&](int i) { advance(it.nu[i], it.dnu[i]); });
    team.for_each(
        s.k, [&](int i) { advance(it.lam[i], select(a.active[i] != zero, it.dlam[i], zero)); });
    team.template sync<Site::kAdjointStep>();
    const auto looked_at = both(moving, negate(last));
    Scalar now = error;
    if (any(looked_at)) {
      const AdjointError<Scalar> seen = adjoint_residuals(team, a, curvature);
      now = select(looked_at, seen.relative, now);
      z_size = select(looked_at, seen.z_size, z_size);
    }
    const auto better = both(moving, either(last, now < error));
    const Scalar rounding =
        broadcast<Scalar>(rounding_v<Scalar, Form> * epsilon_v<Scalar>) * z_size;
    team.for_each(s.np, [&](int i) {
      // Where the sides that hold fix z, the derivative is zero and not the noise around it.
      const Scalar value = select(absolute(it.z[i]) > rounding, it.z[i], zero);
      a.d_z[i] = select(better, value * a.scale.variable[i], a.d_z[i]);
    });
    team.for_each(s.pp, [&](int i) {
      a.d_nu[i] = select(better, (it.nu[i] * a.scale.equality[i]) * inverse_cost, a.d_nu[i]);
    });
    team.for_each(s.k, [&](int i) {
      a.d_lam[i] = select(better, (it.lam[i] * a.scale.row[i]) * inverse_cost, a.d_lam[i]);
    });
    const Scalar fine = broadcast<Scalar>(adjoint_fine_v<Scalar, Form> * epsilon_v<Scalar>);
    moving = both(looked_at, both(now<half * error, now> fine));
    const Scalar next = now * (now / minimum(error, broadcast<Scalar>(1)));
    last = both(moving, next <= broadcast<Scalar>(adjoint_unseen_v<Scalar, Form>));
    error = now;
  }
  team.template sync<Site::kAdjointKeep>();
  return both(which, negate(error <= broadcast<Scalar>(undetermined_v<Scalar>)));
}

/// As refine_once; what of g cannot be met is taken out of it, and the rest solved for.
///
/// A singular K meets g only as far as g lies in its range. The factor is that of K + R with a small
/// R, and where g has a part outside, d = -(K + R)^-1 g is that part over R, which no refinement
/// mends: its residual K d + g is the part itself, to rounding over R.
///
/// Team: as refine_once.
template <class Team, class Scalar, class Form>
TORCHQP_HD_CALL void refine_adjoint(const Team& team, const Adjoint<Scalar>& a, Form& form,
                                    Scalar curvature, MaskOf<Scalar> which) {
  const Shape& s = a.data.shape;
  const Iterate<Scalar>& it = a.it;
  const auto outside = refine_once(team, a, form, curvature, which);
  if (!any(outside)) return;
  team.single([&] { a.info[0] = select(outside, broadcast<Scalar>(1), a.info[0]); });
  team.for_each(s.np, [&](int i) { a.g_z[i] = select(outside, a.g_z[i] - it.r_d[i], a.g_z[i]); });
  team.for_each(s.pp,
                [&](int i) { a.g_nu[i] = select(outside, a.g_nu[i] - it.r_p[i], a.g_nu[i]); });
  team.for_each(s.k,
                [&](int i) { a.g_lam[i] = select(outside, a.g_lam[i] - it.y[i], a.g_lam[i]); });
  refine_once(team, a, form, curvature, outside);
}

}  // namespace detail

/// Lists the rows that hold, which a given factor of the dual form goes by.
///
/// Team: every lane calls and sees its own entries of a.active on entry; ends with a sync.
template <class Team, class Scalar>
TORCHQP_HD void list_held(const Team& team, const Adjoint<Scalar>& a) {
  const Shape& s = a.data.shape;
  if (prefers_dual(s)) a.dual.schur.factor.held.list(team, a.active, s.m, s.mp);
}

/// Solves the system in `a`; a factor that is given goes with list_held. The answer is zero on sides
/// that do not hold and for problems that are not live.
///
/// Team: every lane calls with equal arguments; inputs are visible to all on entry; ends with a
/// sync. Bitwise: equal for every team size; a problem's answer does not depend on its company in
/// the pack. Never allocates.
template <class Team, class Scalar>
TORCHQP_HD_CALL void solve_adjoint(const Team& team, Adjoint<Scalar>& a) {
  const Shape& s = a.data.shape;
  const Scalar zero = broadcast<Scalar>(0);
  auto direct = broadcast_mask<Scalar>(false);
  team.single([&] { a.info[0] = zero; });
  if (has_single_row(s)) {
    direct = solve_single_row_adjoint(team, a, a.it.dz);
    if (all(direct)) return;
  }
  a.scale.reset(team, s);
  const auto clear = [&](Scalar& answer) { answer = select(direct, answer, zero); };
  team.for_each(s.np, [&](int i) { clear(a.d_z[i]), a.data.q[i] = zero; });
  team.for_each(s.pp, [&](int i) { clear(a.d_nu[i]), a.data.b[i] = zero; });
  team.for_each(s.k, [&](int i) {
    clear(a.d_lam[i]), a.data.lower[i] = zero, a.data.upper[i] = zero, a.it.active[i] = a.active[i];
  });
  team.template sync<Site::kAdjointSetup>();
  auto open = both(a.live[0] > zero, negate(direct));
  const Scalar one = broadcast<Scalar>(1);  // the size of Q after equilibration
  if (prefers_dual(s)) {
    Scalar largest[1] = {broadcast<Scalar>(std::numeric_limits<Element<Scalar>>::min())};
    team.for_each(s.n, [&](int i) { largest[0] = maximum(largest[0], a.data.Q[i * (s.np + 1)]); });
    team.template max_all<Site::kAdjointSetup>(largest);
    const Scalar curvature = largest[0];
    const auto ready = both(open, a.factor_tag[0] > zero);
    if (any(ready)) detail::refine_adjoint(team, a, a.dual, curvature, ready);
    open = both(open, negate(ready));
    if (any(open)) {
      const auto definite = a.dual.schur.factor_equalities(team, a.data);
      a.dual.schur.factor_rows(team, a.data, a.active);
      detail::refine_adjoint(team, a, a.dual, curvature, both(open, definite));
      open = both(open, negate(definite));
    }
  }
  if (any(open)) {
    const Scalar cost_given = maximum(-a.factor_tag[0], zero);
    equilibrate(team, a.data, a.scale, cost_given, a.ruiz);
    const Scalar cost = a.scale.cost[0];
    team.for_each(s.np, [&](int i) { a.g_z[i] = (a.g_z[i] * a.scale.variable[i]) * cost; });
    team.for_each(s.pp, [&](int i) { a.g_nu[i] = a.g_nu[i] * a.scale.equality[i]; });
    team.for_each(s.k, [&](int i) { a.g_lam[i] = a.g_lam[i] * a.scale.row[i]; });
    if (s.diagonal) {
      a.diagonal.factor_active(team, a.it);
      detail::refine_adjoint(team, a, a.diagonal, one, open);
      return;
    }
    const auto ready = both(open, cost_given > zero);
    if (any(ready)) {
      a.condensed.adopt_factor(team, a.it);
      detail::refine_adjoint(team, a, a.condensed, one, ready);
      open = both(open, negate(ready));
    }
    if (any(open)) {
      a.condensed.form_base(team);
      a.condensed.factor_active(team, a.it);
      detail::refine_adjoint(team, a, a.condensed, one, open);
    }
  }
}

TORCHQP_END_ISA_NAMESPACE
}  // namespace torchqp::qp
