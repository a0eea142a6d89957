#pragma once
// Between the caller's strided tensors and the solver's packs: lane w of a pack is member
// members[w] of the batch.

#include <limits>

#include "qp/data.hpp"

namespace torchqp::cpu {
TORCHQP_BEGIN_ISA_NAMESPACE

/// The members of the batch in one pack. Lanes beyond `count` repeat the last member and are never
/// written back.
template <int W>
struct Members {
  int64_t index[W];
  int count;

  Members(int64_t begin, int64_t end) : count(static_cast<int>(end - begin < W ? end - begin : W)) {
    for (int w = 0; w < W; ++w) index[w] = begin + (w < count ? w : count - 1);
  }
};

/// to[i] = member's from(i), or `absent` when the argument is not there; to[size .. padded) =
/// `absent`. Entries of `to` lie `stride` apart.
template <class Scalar, class T, int W>
void load_vector(Scalar* to, int padded, const StridedArray<T>& from, int size, double absent,
                 const Members<W>& members, int stride = 1) {
  for (int i = 0; i < padded; ++i) to[i * stride] = broadcast<Scalar>(absent);
  if (from.data == nullptr) return;
  const T* start[W];
  for (int w = 0; w < W; ++w) start[w] = from.data + from.batch.offset(members.index[w]);
  for (int i = 0; i < size; ++i) {
    for (int w = 0; w < W; ++w)
      set(to[i * stride], w, static_cast<Element<Scalar>>(start[w][i * from.row]));
  }
}

/// to(i, j) = member's from(i, j); padding zero.
template <class Scalar, class T, int W>
void load_matrix(Scalar* to, int stride, int padded_rows, const StridedArray<T>& from, int rows,
                 int cols, const Members<W>& members) {
  for (int64_t i = 0; i < int64_t{padded_rows} * stride; ++i) to[i] = broadcast<Scalar>(0);
  if (from.data == nullptr) return;
  const T* start[W];
  for (int w = 0; w < W; ++w) start[w] = from.data + from.batch.offset(members.index[w]);
  for (int i = 0; i < rows; ++i) {
    for (int j = 0; j < cols; ++j) {
      Scalar& entry = to[int64_t{i} * stride + j];
      const int64_t at = i * from.row + j * from.col;
      for (int w = 0; w < W; ++w) set(entry, w, static_cast<Element<Scalar>>(start[w][at]));
    }
  }
}

/// to = (Q + Q') / 2, or diag(Q), or the diagonal itself where the shape keeps it; padding
/// identity.
template <class Scalar, class T, int W>
void load_hessian(Scalar* to, const qp::Shape& s, const StridedArray<T>& Q, bool diagonal,
                  const Members<W>& members) {
  const Scalar zero = broadcast<Scalar>(0), half = broadcast<Scalar>(0.5);
  if (s.diagonal) {
    load_vector(to, s.np, Q, s.n, 1, members);
    return;
  }
  if (diagonal) {
    for (int64_t i = 0; i < int64_t{s.np} * s.np; ++i) to[i] = zero;
    load_vector(to, s.np, Q, s.n, 1, members, s.np + 1);
    return;
  }
  load_matrix(to, s.np, s.np, Q, s.n, s.n, members);
  for (int i = 0; i < s.n; ++i) {
    for (int j = 0; j < i; ++j) {
      const Scalar mean = half * to[i * s.np + j] + half * to[j * s.np + i];
      to[i * s.np + j] = mean;
      to[j * s.np + i] = mean;
    }
  }
  for (int i = s.n; i < s.np; ++i) to[i * (s.np + 1)] = broadcast<Scalar>(1);
}

/// Bounds of rows, then of variables; from kInfinity on they are infinite.
template <class Scalar, class T, int W>
void load_sides(Scalar* to, const qp::Shape& s, const StridedArray<T>& rows,
                const StridedArray<T>& variables, double absent, const Members<W>& members) {
  load_vector(to, s.mp, rows, s.m, absent, members);
  if (s.bounds) load_vector(to + s.mp, s.np, variables, s.n, absent, members);
  const Scalar most = broadcast<Scalar>(kInfinity),
               infinity = broadcast<Scalar>(std::numeric_limits<double>::infinity());
  for (int i = 0; i < s.k; ++i) {
    to[i] = select(to[i] >= most, infinity, to[i]);
    to[i] = select(to[i] <= -most, -infinity, to[i]);
  }
}

TORCHQP_END_ISA_NAMESPACE
}  // namespace torchqp::cpu
