#pragma once
// Between the caller's strided arrays and a team's arena: one member of the batch, shared out over
// the lanes so that neighbours read and write neighbouring entries.
//
// The values are those of cpu/pack_io.hpp, which does the same for a pack of members.

#include <limits>

#include "core/problem.hpp"
#include "qp/data.hpp"

namespace torchqp::cuda {
TORCHQP_BEGIN_ISA_NAMESPACE

/// to[i] = the member's from(i), or `absent` where the argument is not there; to[size .. padded) =
/// `absent`. Team: shared out; ends without a sync.
template <class Team, class Scalar, class T>
TORCHQP_HD_CALL void load_vector(const Team& team, Scalar* to, int padded,
                                 const StridedArray<T>& from, int size, double absent,
                                 int64_t member, int stride = 1) {
  const int given = from.data == nullptr ? 0 : size;
  const T* start = given > 0 ? from.data + from.batch.offset(member) : nullptr;
  team.for_each(padded, [&](int i) {
    to[int64_t{i} * stride] =
        i < given ? static_cast<Scalar>(start[i * from.row]) : static_cast<Scalar>(absent);
  });
}

/// to(i, j) = the member's from(i, j); padding zero. Team: shared out; ends without a sync.
template <class Team, class Scalar, class T>
TORCHQP_HD_CALL void load_matrix(const Team& team, Scalar* to, int stride, int padded_rows,
                                 const StridedArray<T>& from, int rows, int cols, int64_t member) {
  const int given = from.data == nullptr ? 0 : rows;
  const T* start = given > 0 ? from.data + from.batch.offset(member) : nullptr;
  if (given == padded_rows && cols == stride && from.col == 1 && from.row == cols) {
    team.for_each(padded_rows * stride, [&](int at) { to[at] = static_cast<Scalar>(start[at]); });
    return;
  }
  team.for_each(padded_rows * stride, [&](int at) {
    const int i = at / stride, j = at - i * stride;
    to[at] = i < given && j < cols ? static_cast<Scalar>(start[i * from.row + j * from.col])
                                   : static_cast<Scalar>(0);
  });
}

/// to = (Q + Q') / 2, or diag(Q), or the diagonal itself where the shape keeps it; padding identity.
///
/// Team: every lane calls; ends without a sync.
template <class Team, class Scalar, class T>
TORCHQP_HD_CALL void load_hessian(const Team& team, Scalar* to, const qp::Shape& s,
                                  const StridedArray<T>& Q, bool diagonal, int64_t member) {
  const Scalar half = broadcast<Scalar>(0.5), one = broadcast<Scalar>(1);
  if (s.diagonal) return load_vector(team, to, s.np, Q, s.n, 1, member);
  if (diagonal) {
    team.for_each(s.np * s.np, [&](int at) { to[at] = broadcast<Scalar>(0); });
    team.template sync<Site::kLoad>();
    return load_vector(team, to, s.np, Q, s.n, 1, member, s.np + 1);
  }
  load_matrix(team, to, s.np, s.np, Q, s.n, s.n, member);
  team.template sync<Site::kLoad>();
  team.for_each(s.n * s.np, [&](int at) {
    const int i = at / s.np, j = at - i * s.np;
    if (j >= i) return;
    Scalar &below = to[at], &above = to[j * s.np + i];
    below = half * below + half * above;
    above = below;
  });
  team.for_each(s.np - s.n, [&](int i) { to[(s.n + i) * (s.np + 1)] = one; });
}

/// Bounds of rows, then of variables; from kInfinity on they are infinite. Team: shared out; ends
/// without a sync.
template <class Team, class Scalar, class T>
TORCHQP_HD_CALL void load_sides(const Team& team, Scalar* to, const qp::Shape& s,
                                const StridedArray<T>& rows, const StridedArray<T>& variables,
                                double absent, int64_t member) {
  const Scalar most = broadcast<Scalar>(kInfinity),
               infinity = broadcast<Scalar>(std::numeric_limits<double>::infinity());
  const auto load = [&](Scalar* side, int padded, const StridedArray<T>& from, int size) {
    load_vector(team, side, padded, from, size, absent, member);
    team.for_each(padded, [&](int i) {  // the same lane has just written it
      side[i] = select(side[i] >= most, infinity, side[i]);
      side[i] = select(side[i] <= -most, -infinity, side[i]);
    });
  };
  load(to, s.mp, rows, s.m);
  if (s.bounds) load(to + s.mp, s.np, variables, s.n);
}

TORCHQP_END_ISA_NAMESPACE
}  // namespace torchqp::cuda
