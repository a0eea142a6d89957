#pragma once
// A factor between the solver's padded packs and the batch-first tensor that keeps it; its layout
// is that of factor_size in core/problem.hpp.

#include <algorithm>

#include "cpu/pack_io.hpp"
#include "qp/adjoint.hpp"

namespace torchqp::cpu {
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

  template <class Forms>
  FactorBlocks(const Forms& forms, const qp::Shape& s) : n(s.n), np(s.np), p(s.p), pp(s.pp) {
    if (qp::prefers_dual(s)) {
      const qp::DualFactor<Scalar>& factor = forms.dual.schur.factor;
      L = factor.L, inverse_L = factor.inverse_L, K = factor.K, inverse_K = factor.inverse_K;
      stride = factor.rows, capacity = p + s.m;
      length = std::min(capacity, p + factor.held.template longest<SerialTeam>());
      count = broadcast<Scalar>(p) + factor.held.count[0];
    } else {
      L = forms.condensed.H, inverse_L = forms.condensed.inverse_H;
      K = forms.condensed.S, inverse_K = forms.condensed.inverse_S;
      stride = s.pp, capacity = length = p;
      count = broadcast<Scalar>(p);
    }
  }
  /// Where row (or column) i of the factor stands in K.
  int at(int i) const { return i < p ? i : pp + i - p; }
  Scalar& entry(int i, int j) const { return K[int64_t{at(i)} * stride + at(j)]; }
};

/// Saves the factors of a pack without their padding; see factor_size. A diagonal entry of zero is
/// a row that was dropped.
template <class Scalar, class T, int W>
void save_factor(const qp::Solver<Scalar>& solver, const Dims& dims, const Members<W>& members,
                 T* to) {
  const qp::Shape& s = solver.data.shape;
  const Scalar zero = broadcast<Scalar>(0);
  PackWriter<Scalar, T> writer(to, factor_size(dims), members);
  // A factor in another precision than the data's, or in units that the adjoint cannot find again,
  // is of no use to it; and a failed member's forms hold what its neighbours left there.
  const Scalar tag = solver.result.factor_tag[0];
  auto kept = solver.result.status[0] <= broadcast<Scalar>(1);
  kept = both(kept, qp::prefers_dual(s) ? tag > zero : tag < zero);
  if (s.diagonal || sizeof(T) != sizeof(Element<Scalar>) || !any(kept)) {
    writer.finish(factor_size(dims));
    return;
  }
  const FactorBlocks<Scalar> factor(solver, s);
  writer.put(select(kept, tag, zero));
  for (int i = 0; i < s.n; ++i) {
    const Scalar* row = factor.L + int64_t{i} * s.np;
    for (int j = 0; j < i; ++j) writer.put(select(kept, row[j], zero));
    writer.put(select(both(kept, factor.inverse_L[i] > zero), row[i], zero));
  }
  for (int i = 0; i < factor.length; ++i) {
    const auto mine = both(kept, broadcast<Scalar>(i) < factor.count);
    for (int j = 0; j < i; ++j) writer.put(select(mine, factor.entry(i, j), zero));
    const auto whole = both(mine, factor.inverse_K[factor.at(i)] > zero);
    writer.put(select(whole, factor.entry(i, i), zero));
  }
  const int64_t capacity = factor.capacity, length = factor.length;
  writer.finish(capacity * (capacity + 1) / 2 - length * (length + 1) / 2);
}

/// The inverse of save_factor for all members of a pack. In the dual form the rows that hold must
/// have been listed.
template <class Scalar, class T, int W>
void load_factor(qp::Adjoint<Scalar>& adjoint, const Dims& dims, const StridedArray<T>& from,
                 const Members<W>& members) {
  const Scalar zero = broadcast<Scalar>(0), one = broadcast<Scalar>(1);
  adjoint.factor_tag[0] = zero;
  if (from.data == nullptr || adjoint.data.shape.diagonal) return;
  const FactorBlocks<Scalar> factor(adjoint, adjoint.data.shape);
  PackReader<Scalar, T> reader(Starts<T, W>(from, members).of, from.row, factor_size(dims));
  adjoint.factor_tag[0] = reader.next();
  const auto invert = [&](const Scalar& pivot) {
    return select(pivot > zero, reciprocal(pivot), zero);
  };
  for (int i = 0; i < factor.n; ++i) {
    Scalar* row = factor.L + int64_t{i} * factor.np;
    reader.read(i + 1, [&](Scalar entry) { *row++ = entry; });
    row -= i + 1;
    factor.inverse_L[i] = invert(row[i]);
  }
  const auto pad = [&](Scalar* matrix, Scalar* inverse, int stride, int begin, int end) {
    for (int i = begin; i < end; ++i) {
      for (int j = 0; j < i; ++j) matrix[int64_t{i} * stride + j] = zero;
      matrix[int64_t{i} * stride + i] = inverse[i] = one;
    }
  };
  pad(factor.L, factor.inverse_L, factor.np, factor.n, factor.np);
  pad(factor.K, factor.inverse_K, factor.stride, factor.p, factor.pp);
  for (int i = 0; i < factor.length; ++i) {
    const auto mine = broadcast<Scalar>(i) < factor.count;
    for (int j = factor.p; j < factor.pp && i >= factor.p; ++j) {
      factor.K[int64_t{factor.at(i)} * factor.stride + j] = zero;
    }
    for (int j = 0; j < i; ++j) factor.entry(i, j) = reader.next();
    const Scalar pivot = select(mine, reader.next(), one);
    factor.entry(i, i) = pivot;
    factor.inverse_K[factor.at(i)] = invert(pivot);
  }
  pad(factor.K, factor.inverse_K, factor.stride, factor.at(factor.length),
      std::min(factor.stride, padded(factor.at(factor.length), tile_size_v<SerialTeam, Scalar>)));
}

TORCHQP_END_ISA_NAMESPACE
}  // namespace torchqp::cpu
