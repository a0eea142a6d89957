#pragma once
// All memory of one solve, and what it leaves.

#include "qp/condensed_form.hpp"
#include "qp/diagonal_form.hpp"
#include "qp/dual_form.hpp"
#include "qp/result.hpp"

namespace torchqp::qp {
TORCHQP_BEGIN_ISA_NAMESPACE

/// As prefers_dual of the Dims that the shape was made from.
TORCHQP_HD bool prefers_dual(const Shape& s) {
  return !s.bounds && !s.diagonal && s.m <= 2 * s.n;
}

/// The merit up to which a point is worth returning, as solved_inaccurate.
inline constexpr double kInaccurateMerit = 1e3;

/// What of Q, G and A is in place when a solve begins or when it has ended.
enum class Prepared {
  kNothing,  ///< the caller's matrices are to be loaded
  kFactor,   ///< scaled matrices, the factors of Q and A Q^-1 A'
  kSchur,    ///< T too
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
  Arena<Scalar> instead;  ///< where the form that follows the dual one may overlay it
  DualForm<Scalar> dual;
  CondensedForm<Scalar> condensed;
  DiagonalForm<Scalar> diagonal;

  /// A form has memory only where it may be used.
  TORCHQP_HD Solver(const Shape& s, const Settings& choice, Arena<Scalar>& arena)
      : data(s, arena),
        scale(s, arena),
        it(data, true, arena),
        result(s, arena),
        warm_z(arena.take(s.np)),
        warm_nu(arena.take(s.pp)),
        warm_lam(arena.take(s.k)),
        ruiz(arena.take(2 * (int64_t{s.np} + s.mp + s.pp))),
        finite(arena.take(1)),
        definite(arena.take(1)),
        settings(choice),
        instead(arena),
        dual(data, scale, settings, prefers_dual(s) ? arena : nowhere),
        condensed(data, scale, settings,
                  s.diagonal       ? nowhere
                  : arena.overlays ? instead
                                   : arena),
        diagonal(data, scale, settings, s.diagonal ? arena : nowhere) {
    arena.join(instead);
  }
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
