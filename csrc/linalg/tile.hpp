#pragma once
// Register tiles: the inner loops of every matrix routine.

#include "core/pack.hpp"
#include "core/team.hpp"

namespace torchqp::linalg {
TORCHQP_BEGIN_ISA_NAMESPACE

template <int R, int C, class Scalar>
TORCHQP_HD void zero_tile(Scalar (&tile)[R][C]) {
  TORCHQP_UNROLL
  for (int r = 0; r < R; ++r) {
    TORCHQP_UNROLL
    for (int c = 0; c < C; ++c) tile[r][c] = broadcast<Scalar>(0);
  }
}

template <int R, int C, class Scalar>
TORCHQP_HD void load_tile(Scalar (&tile)[R][C], const Scalar* a, int stride) {
  TORCHQP_UNROLL
  for (int r = 0; r < R; ++r) {
    TORCHQP_UNROLL
    for (int c = 0; c < C; ++c) tile[r][c] = a[r * stride + c];
  }
}

template <int R, int C, class Scalar>
TORCHQP_HD void store_tile(Scalar* a, int stride, const Scalar (&tile)[R][C]) {
  TORCHQP_UNROLL
  for (int r = 0; r < R; ++r) {
    TORCHQP_UNROLL
    for (int c = 0; c < C; ++c) a[r * stride + c] = tile[r][c];
  }
}

/// Stores the transpose.
template <int R, int C, class Scalar>
TORCHQP_HD void store_mirrored(Scalar* a, int stride, const Scalar (&tile)[R][C]) {
  TORCHQP_UNROLL
  for (int r = 0; r < R; ++r) {
    TORCHQP_UNROLL
    for (int c = 0; c < C; ++c) a[c * stride + r] = tile[r][c];
  }
}

/// tile[r][c] -= sum_{k < depth} x(r, k) y(c, k): rows of x and y against each other.
template <int R, int C, class Scalar>
TORCHQP_HD void subtract_row_products(Scalar (&tile)[R][C], const Scalar* x, int x_stride,
                                      const Scalar* y, int y_stride, int depth) {
  for (int k = 0; k < depth; ++k) {
    Scalar row[R], column[C];
    TORCHQP_UNROLL
    for (int r = 0; r < R; ++r) row[r] = x[r * x_stride + k];
    TORCHQP_UNROLL
    for (int c = 0; c < C; ++c) column[c] = y[c * y_stride + k];
    TORCHQP_UNROLL
    for (int r = 0; r < R; ++r) {
      TORCHQP_UNROLL
      for (int c = 0; c < C; ++c) tile[r][c] = fnma(row[r], column[c], tile[r][c]);
    }
  }
}

/// tile[r][c] += sum_{k < depth} x(r, k) y(c, k).
template <int R, int C, class Scalar>
TORCHQP_HD void add_row_products(Scalar (&tile)[R][C], const Scalar* x, int x_stride,
                                 const Scalar* y, int y_stride, int depth) {
  for (int k = 0; k < depth; ++k) {
    Scalar row[R], column[C];
    TORCHQP_UNROLL
    for (int r = 0; r < R; ++r) row[r] = x[r * x_stride + k];
    TORCHQP_UNROLL
    for (int c = 0; c < C; ++c) column[c] = y[c * y_stride + k];
    TORCHQP_UNROLL
    for (int r = 0; r < R; ++r) {
      TORCHQP_UNROLL
      for (int c = 0; c < C; ++c) tile[r][c] = fused(row[r], column[c], tile[r][c]);
    }
  }
}

/// tile[r][c] += sum_{k < depth} x(k, r) weight(k) y(k, c): columns of x and y against each other.
template <int R, int C, class Scalar>
TORCHQP_HD void add_weighted_column_products(Scalar (&tile)[R][C], const Scalar* x, const Scalar* y,
                                             int stride, const Scalar* weight, int depth) {
  for (int k = 0; k < depth; ++k) {
    Scalar row[R], column[C];
    TORCHQP_UNROLL
    for (int r = 0; r < R; ++r) row[r] = x[k * stride + r] * weight[k];
    TORCHQP_UNROLL
    for (int c = 0; c < C; ++c) column[c] = y[k * stride + c];
    TORCHQP_UNROLL
    for (int r = 0; r < R; ++r) {
      TORCHQP_UNROLL
      for (int c = 0; c < C; ++c) tile[r][c] = fused(row[r], column[c], tile[r][c]);
    }
  }
}

/// R rows of A from both sides: sum[r] += A(r, :) x, and y += A' scale or, if that is the first, y =
/// A' scale.
template <bool kFirst, int R, class Scalar>
TORCHQP_HD void add_both_products(const Scalar* A, int stride, int cols, const Scalar* x,
                                  Scalar (&sum)[R], const Scalar (&scale)[R], Scalar* y) {
  for (int k = 0; k < cols; ++k) {
    Scalar column = kFirst ? broadcast<Scalar>(0) : y[k];
    const Scalar factor = x[k];
    TORCHQP_UNROLL
    for (int r = 0; r < R; ++r) {
      const Scalar entry = A[r * stride + k];
      sum[r] = fused(entry, factor, sum[r]);
      column = fused(entry, scale[r], column);
    }
    y[k] = column;
  }
}

/// Rows of the tile times the inverse transpose of a lower triangular tile: tile <- tile L^-T.
template <int R, int C, class Scalar>
TORCHQP_HD void solve_tile(Scalar (&tile)[R][C], const Scalar (&lower)[C][C],
                           const Scalar (&inverse_diag)[C]) {
  TORCHQP_UNROLL
  for (int c = 0; c < C; ++c) {
    TORCHQP_UNROLL
    for (int r = 0; r < R; ++r) {
      TORCHQP_UNROLL
      for (int k = 0; k < c; ++k) tile[r][c] = fnma(tile[r][k], lower[c][k], tile[r][c]);
      tile[r][c] = tile[r][c] * inverse_diag[c];
    }
  }
}

TORCHQP_END_ISA_NAMESPACE
}  // namespace torchqp::linalg
