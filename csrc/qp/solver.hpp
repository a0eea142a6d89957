#pragma once
// All memory of one solve, and what it leaves.

#include "core/status.hpp"
#include "qp/condensed_form.hpp"
#include "qp/diagonal_form.hpp"
#include "qp/dual_form.hpp"

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

TORCHQP_END_ISA_NAMESPACE
}  // namespace torchqp::qp
