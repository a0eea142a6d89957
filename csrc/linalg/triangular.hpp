#pragma once
// Solves with a lower triangular factor, in place. n is a multiple of the tile; padded rows are
// identity rows.

#include "linalg/panel.hpp"
#include "linalg/staged.hpp"
#include "linalg/strip.hpp"
#include "linalg/tile.hpp"

namespace torchqp::linalg {
TORCHQP_BEGIN_ISA_NAMESPACE

/// x <- L^-1 x.
///
///   in      L             [n, n]  row-major, rows `stride` apart; lower triangle read
///   in      inverse_diag  [n]     1 / L_ii
///   in/out  x             [n]
///
/// Team:    every lane calls with equal arguments; L and x are visible to all on entry; ends with a
///          sync.
/// Bitwise: equal for every team size and tile: x_i is one sum over k ascending.
/// Cost:    n^2/2 fused multiply-adds, n / tile barriers. Right-looking, so that all rows below a
///          tile work at once.
template <class Team, class Scalar>
TORCHQP_HD_CALL void solve_lower(const Team& caller, const Scalar* L, int stride, int n,
                                 const Scalar* inverse_diag, Scalar* x) {
  const Team team = caller;
  if constexpr (rowwise_v<Team, Scalar>) {
    if (n > strip::kSmallSolve) return strip::solve_lower(L, stride, n, inverse_diag, x);
  }
  constexpr int kTile = tile_size_v<Team, Scalar>;
  for (int j = 0; j < n; j += kTile) {
    Scalar solved[kTile];
    TORCHQP_UNROLL
    for (int c = 0; c < kTile; ++c) {
      solved[c] = x[j + c];
      TORCHQP_UNROLL
      for (int k = 0; k < c; ++k)
        solved[c] = fnma(L[(j + c) * stride + j + k], solved[k], solved[c]);
      solved[c] = solved[c] * inverse_diag[j + c];
    }
    team.for_each(n - j - kTile, [&](int offset) {
      const int i = j + kTile + offset;
      const Scalar* row = L + i * stride + j;
      Scalar sum = x[i];
      TORCHQP_UNROLL
      for (int c = 0; c < kTile; ++c) sum = fnma(row[c], solved[c], sum);
      x[i] = sum;
    });
    team.template sync<Site::kLowerTile>();  // the next tile reads what other lanes updated
    team.single([&] {                        // these entries all have read, and no one reads again
      TORCHQP_UNROLL
      for (int c = 0; c < kTile; ++c) x[j + c] = solved[c];
    });
  }
  if (n > 0) team.template sync<Site::kLowerEnd>();
}

/// x <- L^-T x. As solve_lower; x_i is one sum over k descending.
template <class Team, class Scalar>
TORCHQP_HD_CALL void solve_lower_transposed(const Team& caller, const Scalar* L, int stride, int n,
                                            const Scalar* inverse_diag, Scalar* x) {
  const Team team = caller;
  constexpr int kTile = tile_size_v<Team, Scalar>;
  for (int j = n - kTile; j >= 0; j -= kTile) {
    Scalar solved[kTile];
    TORCHQP_UNROLL
    for (int c = kTile - 1; c >= 0; --c) {
      solved[c] = x[j + c];
      TORCHQP_UNROLL
      for (int k = kTile - 1; k > c; --k)
        solved[c] = fnma(L[(j + k) * stride + j + c], solved[k], solved[c]);
      solved[c] = solved[c] * inverse_diag[j + c];
    }
    team.for_each(j, [&](int i) {
      Scalar sum = x[i];
      TORCHQP_UNROLL
      for (int c = kTile - 1; c >= 0; --c) sum = fnma(L[(j + c) * stride + i], solved[c], sum);
      x[i] = sum;
    });
    team.template sync<Site::kUpperTile>();  // the next tile reads what other lanes updated
    team.single([&] {                        // these entries all have read, and no one reads again
      TORCHQP_UNROLL
      for (int c = 0; c < kTile; ++c) x[j + c] = solved[c];
    });
  }
  if (n > 0) team.template sync<Site::kUpperEnd>();
}

/// x <- (L L')^-1 x.
template <class Team, class Scalar>
TORCHQP_HD_CALL void solve_cholesky(const Team& team, const Scalar* L, int stride, int n,
                                    const Scalar* inverse_diag, Scalar* x) {
  solve_lower(team, L, stride, n, inverse_diag, x);
  solve_lower_transposed(team, L, stride, n, inverse_diag, x);
}

/// Every row of X <- L^-1 (row): X L^-T for a whole matrix.
///
///   in      L             [n, n]
///   in      inverse_diag  [n]        1 / L_ii
///   in/out  X             [rows, n]  rows `x_stride` apart; rows is a multiple of the tile
///
/// Team:    every lane calls; X and L are visible to all on entry; ends with a sync.
/// Bitwise: equal for every team size, tile and block.
/// Cost:    rows n^2/2 fused multiply-adds, 2 n / block barriers.
template <class Team, class Scalar>
TORCHQP_HD_CALL void solve_lower_rows(const Team& caller, const Scalar* L, int stride, int n,
                                      const Scalar* inverse_diag, Scalar* X, int x_stride,
                                      int rows) {
  const Team team = caller;
  if constexpr (rowwise_v<Team, Scalar>) {
    if (n > kSmall) return panel::solve_lower_rows(L, stride, n, inverse_diag, X, x_stride, rows);
  }
  constexpr int kTile = tile_size_v<Team, Scalar>;
  constexpr int kBlock = block_size_v<Team, Scalar>;
  for (int begin = 0; begin < n; begin += kBlock) {
    const int end = begin + kBlock < n ? begin + kBlock : n;
    team.for_each_tile(0, rows, kTile, [&](int i) {
      Scalar* x = X + i * x_stride;
      for (int j = begin; j < end; j += kTile) {
        Scalar diagonal[kTile][kTile], inverse[kTile], tile[kTile][kTile];
        load_tile(diagonal, L + j * stride + j, stride);
        TORCHQP_UNROLL
        for (int c = 0; c < kTile; ++c) inverse[c] = inverse_diag[j + c];
        load_tile(tile, x + j, x_stride);
        subtract_row_products(tile, x + begin, x_stride, L + j * stride + begin, stride, j - begin);
        solve_tile(tile, diagonal, inverse);
        store_tile(x + j, x_stride, tile);
      }
    });
    if (end == n) break;
    team.template sync<Site::kRowsBlock>();  // other lanes go on with these rows
    if (Scalar* stage = team.template stage<Scalar>()) {
      staged::multiply_rows<true>(team, stage, X + begin, x_stride, rows,
                                  L + int64_t{end} * stride + begin, stride, n - end, end - begin,
                                  X + end, x_stride, Part::kAll, true, false);
      team.template sync<Site::kRowsBlock>();
      continue;
    }
    team.for_each_tile_pair(rows, n - end, kTile, false, [&](int i, int right) {
      const int j = end + right;
      Scalar* x = X + i * x_stride;
      Scalar tile[kTile][kTile];
      load_tile(tile, x + j, x_stride);
      subtract_row_products(tile, x + begin, x_stride, L + j * stride + begin, stride, end - begin);
      store_tile(x + j, x_stride, tile);
    });
    team.template sync<Site::kRowsBlock>();  // the next block reads what other lanes updated
  }
  team.template sync<Site::kRowsEnd>();  // callers read whole columns
}

TORCHQP_END_ISA_NAMESPACE
}  // namespace torchqp::linalg
