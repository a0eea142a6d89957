#pragma once
// Which numbers of a solved problem's forms are saved for its derivative; their order in memory is
// that of factor_size in core/problem.hpp.

#include "qp/adjoint.hpp"

namespace torchqp::qp {
TORCHQP_BEGIN_ISA_NAMESPACE

/// The two triangles of a saved factor, wherever the form keeps them: of Q or H, and of the
/// constraints' system.
template <class Scalar>
struct FactorBlocks {
  Scalar *L, *inverse_L;  ///< [np, np] [np]
  Scalar *K, *inverse_K;  ///< [stride, stride] [stride]
  int n, np, p, pp, stride;
  int capacity;  ///< rows of K at most, without padding
  int length;    ///< rows of K, padding of the equalities left out
  Scalar count;  ///< rows of K that each problem has: equalities, then rows that hold

  /// Of a Solver or an Adjoint. Team: every lane calls; the rows that hold are visible to all.
  template <class Team, class Forms>
  TORCHQP_HD FactorBlocks(const Team&, const Forms& forms, const Shape& s)
      : n(s.n), np(s.np), p(s.p), pp(s.pp) {
    if (prefers_dual(s)) {
      const DualFactor<Scalar>& factor = forms.dual.schur.factor;
      L = factor.L, inverse_L = factor.inverse_L, K = factor.K, inverse_K = factor.inverse_K;
      stride = factor.rows, capacity = p + s.m;
      const int held = p + factor.held.template longest<Team>();
      length = held < capacity ? held : capacity;
      count = broadcast<Scalar>(p) + factor.held.count[0];
    } else {
      L = forms.condensed.H, inverse_L = forms.condensed.inverse_H;
      K = forms.condensed.S, inverse_K = forms.condensed.inverse_S;
      stride = s.pp, capacity = length = p;
      count = broadcast<Scalar>(p);
    }
  }
  /// Where row (or column) i of the factor stands in K.
  TORCHQP_HD int at(int i) const { return i < p ? i : pp + i - p; }
  TORCHQP_HD Scalar& entry(int i, int j) const { return K[int64_t{at(i)} * stride + at(j)]; }

  /// What is saved of the factor of Q or H at (i, j), j <= i: a diagonal entry of zero is a row that
  /// was dropped.
  TORCHQP_HD Scalar saved_L(int i, int j) const {
    const Scalar zero = broadcast<Scalar>(0), value = L[int64_t{i} * np + j];
    return i == j ? select(inverse_L[i] > zero, value, zero) : value;
  }
  /// The same of the constraints' system, zero in rows that a problem does not have.
  TORCHQP_HD Scalar saved_K(int i, int j) const {
    const Scalar zero = broadcast<Scalar>(0), value = entry(i, j);
    const auto mine = broadcast<Scalar>(i) < count;
    return select(i == j ? both(mine, inverse_K[at(i)] > zero) : mine, value, zero);
  }
};

/// The reciprocal of a saved diagonal entry, zero for a row that was dropped.
template <class Scalar>
TORCHQP_HD Scalar inverse_pivot(const Scalar& pivot) {
  return select(pivot > broadcast<Scalar>(0), reciprocal(pivot), broadcast<Scalar>(0));
}

/// Where a factor is kept that its adjoint can use. A factor in another precision than the data's,
/// or in units that the adjoint cannot find again, is of no use to it; and a failed member's forms
/// hold what its neighbours left there.
template <class Scalar>
TORCHQP_HD MaskOf<Scalar> keeps_factor(const Solver<Scalar>& solver) {
  const Scalar zero = broadcast<Scalar>(0), tag = solver.result.factor_tag[0];
  if (solver.data.shape.diagonal) return broadcast_mask<Scalar>(false);
  return both(solver.result.status[0] <= broadcast<Scalar>(1),
              prefers_dual(solver.data.shape) ? tag > zero : tag < zero);
}

TORCHQP_END_ISA_NAMESPACE
}  // namespace torchqp::qp
