#pragma once
// Matrix-vector and matrix-matrix products. Dimensions are multiples of the tile; padding holds
// zeros.

#include "linalg/panel.hpp"
#include "linalg/staged.hpp"
#include "linalg/strip.hpp"
#include "linalg/tile.hpp"

namespace torchqp::linalg {
TORCHQP_BEGIN_ISA_NAMESPACE

/// Whether a product replaces its destination or is added to it.
enum class Into { kReplace, kAdd };

/// y (+)= A x.
///
///   in   A  [rows, cols]  row-major, rows `stride` apart
///   in   x  [cols]
///   out  y  [rows]        distinct from x
///
/// Team:    every lane calls; A and x are visible to all on entry; ends with a sync.
/// Bitwise: equal for every team size and tile: one sum over columns ascending.
/// Cost:    rows * cols fused multiply-adds.
template <Into kInto, class Team, class Scalar>
TORCHQP_HD_CALL void multiply(const Team& team, const Scalar* A, int stride, int rows, int cols,
                              const Scalar* x, Scalar* y) {
  if constexpr (rowwise_v<Team, Scalar>) {
    if (rows > kSmall && cols > kSmall)
      return strip::multiply<strip::Sign::kPlus>(A, stride, rows, cols, x, y,
                                                 kInto == Into::kReplace);
  }
  constexpr int kTile = sums_per_lane_v<Team, Scalar>;
  team.for_each_tile(0, rows, kTile, [&](int i) {
    Scalar sum[kTile];
    TORCHQP_UNROLL
    for (int r = 0; r < kTile; ++r) sum[r] = kInto == Into::kAdd ? y[i + r] : broadcast<Scalar>(0);
    for (int k = 0; k < cols; ++k) {
      TORCHQP_UNROLL
      for (int r = 0; r < kTile; ++r) sum[r] = fused(A[(i + r) * stride + k], x[k], sum[r]);
    }
    TORCHQP_UNROLL
    for (int r = 0; r < kTile; ++r) y[i + r] = sum[r];
  });
  team.template sync<Site::kMultiplyEnd>();  // callers read all of y
}

/// y (+)= A' x. As multiply; one sum over rows ascending.
template <Into kInto, class Team, class Scalar>
TORCHQP_HD_CALL void multiply_transposed(const Team& team, const Scalar* A, int stride, int rows,
                                         int cols, const Scalar* x, Scalar* y) {
  if constexpr (rowwise_v<Team, Scalar>) {
    if (cols > kSmall)
      return strip::multiply_transposed(A, stride, rows, cols, x, y, kInto == Into::kReplace);
  }
  constexpr int kTile = sums_per_lane_v<Team, Scalar>;
  team.for_each_tile(0, cols, kTile, [&](int j) {
    Scalar sum[kTile];
    TORCHQP_UNROLL
    for (int c = 0; c < kTile; ++c) sum[c] = kInto == Into::kAdd ? y[j + c] : broadcast<Scalar>(0);
    for (int k = 0; k < rows; ++k) {
      TORCHQP_UNROLL
      for (int c = 0; c < kTile; ++c) sum[c] = fused(A[k * stride + j + c], x[k], sum[c]);
    }
    TORCHQP_UNROLL
    for (int c = 0; c < kTile; ++c) y[j + c] = sum[c];
  });
  team.template sync<Site::kMultiplyTransposedEnd>();  // callers read all of y
}

/// y = A x for a symmetric A of which both triangles are stored.
///
///   in   A  [n, n]  row-major, rows `stride` apart
///   in   x  [n]
///   out  y  [n]     distinct from x
///
/// Team:    every lane calls; A and x are visible to all on entry; ends with a sync.
/// Bitwise: equal for every team size and tile, and to multiply.
/// Cost:    n^2 fused multiply-adds. The CPU reads half of an A that is larger than a cache.
template <class Team, class Scalar>
TORCHQP_HD_CALL void multiply_symmetric(const Team& team, const Scalar* A, int stride, int n,
                                        const Scalar* x, Scalar* y) {
  if constexpr (rowwise_v<Team, Scalar>) {
    if (lanes_v<Scalar> >= 8 && static_cast<size_t>(n) * n * sizeof(Scalar) > strip::kCacheBytes)
      return strip::multiply_symmetric(A, stride, n, x, y);
  }
  if constexpr (std::is_same_v<Team, SerialTeam> && !rowwise_v<Team, Scalar>) {
    // By halves: row i gives y_i what stands left of the diagonal, and the entries above what
    // mirrors it, so that each sum still ascends.
    constexpr int kTile = tile_size_v<Team, Scalar>;
    for (int i = 0; i < n; i += kTile) {
      const Scalar* row = A + i * stride;
      Scalar sum[kTile], scale[kTile];
      TORCHQP_UNROLL
      for (int r = 0; r < kTile; ++r) sum[r] = broadcast<Scalar>(0), scale[r] = x[i + r];
      add_both_products<false>(row, stride, i, x, sum, scale, y);
      TORCHQP_UNROLL
      for (int r = 0; r < kTile; ++r) {
        TORCHQP_UNROLL
        for (int c = 0; c < kTile; ++c)
          sum[r] = fused(row[c <= r ? r * stride + i + c : c * stride + i + r], scale[c], sum[r]);
        y[i + r] = sum[r];
      }
    }
  } else {
    multiply_transposed<Into::kReplace>(team, A, stride, n, n, x, y);
  }
}

/// y = A x and v = A' u in one pass over A.
///
///   in   A  [rows, cols]  row-major, rows `stride` apart
///   in   x  [cols]
///   out  y  [rows]        distinct from x, u and v
///   in   u  [rows]
///   out  v  [cols]        distinct from x, u and y
///
/// Team:    every lane calls; A, x and u are visible to all on entry; ends with a sync.
/// Bitwise: equal for every team size and tile, and to multiply and multiply_transposed.
/// Cost:    2 rows * cols fused multiply-adds.
template <class Team, class Scalar>
TORCHQP_HD_CALL void multiply_both(const Team& team, const Scalar* A, int stride, int rows,
                                   int cols, const Scalar* x, Scalar* y, const Scalar* u,
                                   Scalar* v) {
  if constexpr (rowwise_v<Team, Scalar>) {
    if (rows > kSmall) return strip::multiply_both(A, stride, rows, cols, x, y, u, v);
  }
  if constexpr (std::is_same_v<Team, SerialTeam>) {
    constexpr int kTile = tile_size_v<Team, Scalar>;
    if (rows == 0)
      for (int k = 0; k < cols; ++k) v[k] = broadcast<Scalar>(0);
    for (int i = 0; i < rows; i += kTile) {
      Scalar sum[kTile], scale[kTile];
      TORCHQP_UNROLL
      for (int r = 0; r < kTile; ++r) sum[r] = broadcast<Scalar>(0), scale[r] = u[i + r];
      if (i == 0) {
        add_both_products<true>(A, stride, cols, x, sum, scale, v);
      } else {
        add_both_products<false>(A + i * stride, stride, cols, x, sum, scale, v);
      }
      TORCHQP_UNROLL
      for (int r = 0; r < kTile; ++r) y[i + r] = sum[r];
    }
  } else {
    multiply<Into::kReplace>(team, A, stride, rows, cols, x, y);
    multiply_transposed<Into::kReplace>(team, A, stride, rows, cols, u, v);
  }
}

/// P (+)= X Y' for the rows of two matrices.
///
///   in   X           [rows, depth]
///   in   Y           [cols, depth]
///   in   lower_only  P is symmetric: its lower triangle is computed and mirrored into the upper
///   out  P           [rows, cols]
///
/// Team:    every lane calls; X and Y are visible to all on entry; ends with a sync.
/// Bitwise: equal for every team size and tile.
/// Cost:    rows * cols * depth fused multiply-adds, half with lower_only.
template <Into kInto, class Team, class Scalar>
TORCHQP_HD_CALL void multiply_rows(const Team& team, const Scalar* X, int x_stride, int rows,
                                   const Scalar* Y, int y_stride, int cols, int depth, Scalar* P,
                                   int stride, bool lower_only) {
  if constexpr (rowwise_v<Team, Scalar>) {
    if (rows > kSmall || cols > kSmall) {
      panel::multiply_rows<panel::Sign::kPlus>(X, x_stride, rows, Y, y_stride, cols, depth, P,
                                               stride, lower_only, kInto == Into::kReplace);
      if (lower_only) panel::mirror(P, stride, rows);
      return;
    }
  }
  if (Scalar* stage = team.template stage<Scalar>()) {
    staged::multiply_rows<false>(team, stage, X, x_stride, rows, Y, y_stride, cols, depth, P,
                                 stride, lower_only ? Part::kLower : Part::kAll,
                                 kInto == Into::kAdd, lower_only);
    return team.template sync<Site::kGramEnd>();
  }
  constexpr int kTile = tile_size_v<Team, Scalar>;
  team.for_each_tile_pair(rows, cols, kTile, lower_only, [&](int i, int j) {
    Scalar tile[kTile][kTile];
    if constexpr (kInto == Into::kAdd) {
      load_tile(tile, P + i * stride + j, stride);
    } else {
      zero_tile(tile);
    }
    add_row_products(tile, X + i * x_stride, x_stride, Y + j * y_stride, y_stride, depth);
    store_tile(P + i * stride + j, stride, tile);
    if (lower_only && j < i) store_mirrored(P + j * stride + i, stride, tile);
  });
  team.template sync<Site::kGramEnd>();  // callers read all of P
}

/// P -= X X', lower triangle computed and mirrored. As multiply_rows.
template <class Team, class Scalar>
TORCHQP_HD_CALL void subtract_gram(const Team& team, const Scalar* X, int x_stride, int rows,
                                   int depth, Scalar* P, int stride) {
  if constexpr (rowwise_v<Team, Scalar>) {
    if (rows > kSmall) {
      panel::multiply_rows<panel::Sign::kMinus>(X, x_stride, rows, X, x_stride, rows, depth, P,
                                                stride, true, false);
      return panel::mirror(P, stride, rows);
    }
  }
  if (Scalar* stage = team.template stage<Scalar>()) {
    staged::multiply_rows<true>(team, stage, X, x_stride, rows, X, x_stride, rows, depth, P, stride,
                                Part::kLower, true, true);
    return team.template sync<Site::kGramEnd>();
  }
  constexpr int kTile = tile_size_v<Team, Scalar>;
  team.for_each_tile_pair(rows, rows, kTile, true, [&](int i, int j) {
    Scalar tile[kTile][kTile];
    load_tile(tile, P + i * stride + j, stride);
    subtract_row_products(tile, X + i * x_stride, x_stride, X + j * x_stride, x_stride, depth);
    store_tile(P + i * stride + j, stride, tile);
    if (j < i) store_mirrored(P + j * stride + i, stride, tile);
  });
  team.template sync<Site::kGramEnd>();  // callers read all of P
}

/// H = Q + G' diag(weight) G, lower triangle.
///
///   in   Q       [n, n]
///   in   G       [rows, n]
///   in   weight  [rows]
///   out  H       [n, n]     lower triangle and diagonal tiles
///
/// Team:    every lane calls; Q, G and weight are visible to all on entry; ends with a sync.
/// Bitwise: equal for every team size and tile.
/// Cost:    rows n^2/2 fused multiply-adds.
template <class Team, class Scalar>
TORCHQP_HD_CALL void add_weighted_gram(const Team& team, const Scalar* Q, const Scalar* G,
                                       int stride, int n, int rows, const Scalar* weight,
                                       Scalar* H) {
  constexpr int kTile = tile_size_v<Team, Scalar>;
  if constexpr (rowwise_v<Team, Scalar>) {
    if (n > kSmall && rows > kTile)
      return panel::add_weighted_gram(Q, G, stride, n, rows, weight, H);
  }
  if (Scalar* stage = team.template stage<Scalar>()) {
    staged::multiply<false>(
        team, stage, n, n, rows, Part::kLower, false,
        [&](int i, int k) { return G[int64_t{k} * stride + i] * weight[k]; },
        [&](int j, int k) { return G[int64_t{k} * stride + j]; },
        [&](int i, int j) { return Q[int64_t{i} * stride + j]; },
        [&](int i, int j, Scalar value) { H[int64_t{i} * stride + j] = value; });
    return team.template sync<Site::kWeightedGramEnd>();
  }
  team.for_each_tile_pair(n, n, kTile, true, [&](int i, int j) {
    Scalar tile[kTile][kTile];
    load_tile(tile, Q + i * stride + j, stride);
    add_weighted_column_products(tile, G + i, G + j, stride, weight, rows);
    store_tile(H + i * stride + j, stride, tile);
  });
  team.template sync<Site::kWeightedGramEnd>();  // the factorization reads all of H
}

TORCHQP_END_ISA_NAMESPACE
}  // namespace torchqp::linalg
