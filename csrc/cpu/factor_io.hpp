#pragma once
// A factor between the solver's padded packs and the batch-first tensor that keeps it; its layout
// is that of factor_size in core/problem.hpp.

#include <algorithm>

#include "cpu/pack_io.hpp"
#include "qp/saved_factor.hpp"

namespace torchqp::cpu {
TORCHQP_BEGIN_ISA_NAMESPACE

/// Saves the factors of a pack without their padding; see factor_size. A diagonal entry of zero is
/// a row that was dropped.
template <class Scalar, class T, int W>
void save_factor(const qp::Solver<Scalar>& solver, const Dims& dims, const Members<W>& members,
                 T* to) {
  const Scalar zero = broadcast<Scalar>(0);
  PackWriter<Scalar, T> writer(to, factor_size(dims), members);
  const auto kept = qp::keeps_factor(solver);
  if (sizeof(T) != sizeof(Element<Scalar>) || !any(kept)) {
    writer.finish(factor_size(dims));
    return;
  }
  const qp::FactorBlocks<Scalar> factor(SerialTeam{}, solver, solver.data.shape);
  writer.put(select(kept, solver.result.factor_tag[0], zero));
  for (int i = 0; i < factor.n; ++i) {
    for (int j = 0; j <= i; ++j) writer.put(select(kept, factor.saved_L(i, j), zero));
  }
  for (int i = 0; i < factor.length; ++i) {
    for (int j = 0; j <= i; ++j) writer.put(select(kept, factor.saved_K(i, j), zero));
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
  const qp::FactorBlocks<Scalar> factor(SerialTeam{}, adjoint, adjoint.data.shape);
  const PackReader<Scalar, T> reader(Starts<T, W>(from, members).of, from.row, factor_size(dims));
  int64_t at = 0;
  const auto read = [&](int64_t count, Scalar* to) { reader.read(at, count, to), at += count; };
  read(1, adjoint.factor_tag);
  for (int i = 0; i < factor.n; ++i) {
    Scalar* row = factor.L + int64_t{i} * factor.np;
    read(i + 1, row);
    factor.inverse_L[i] = qp::inverse_pivot(row[i]);
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
    Scalar* row = factor.K + int64_t{factor.at(i)} * factor.stride;
    read(std::min(i + 1, factor.p), row);
    if (i >= factor.p) {
      for (int j = factor.p; j < factor.pp; ++j) row[j] = zero;
      read(i + 1 - factor.p, row + factor.pp);
    }
    Scalar& pivot = row[factor.at(i)];
    pivot = select(broadcast<Scalar>(i) < factor.count, pivot, one);
    factor.inverse_K[factor.at(i)] = qp::inverse_pivot(pivot);
  }
  pad(factor.K, factor.inverse_K, factor.stride, factor.at(factor.length),
      std::min(factor.stride, padded(factor.at(factor.length), tile_size_v<SerialTeam, Scalar>)));
}

TORCHQP_END_ISA_NAMESPACE
}  // namespace torchqp::cpu
