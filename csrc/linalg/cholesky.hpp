#pragma once
// Cholesky factorization of one problem's matrix by a team.

#include "linalg/panel.hpp"
#include "linalg/staged.hpp"
#include "linalg/tile.hpp"

namespace torchqp::linalg {
TORCHQP_BEGIN_ISA_NAMESPACE

/// What to do with a pivot that is not above `tolerance` times its diagonal entry of H.
enum class Pivot {
  kRequire,  ///< NaN in that row and column, of that problem only: H is not positive definite; read
             ///< it off inverse_diag
  kDrop,  ///< the row depends on those above it: take it out (1 / L_ii = 0), so that solves leave
          ///< it at zero
};

/// Factors a symmetric positive (semi)definite matrix in place, H = L L'.
///
///   in   H             [n, n]  row-major, rows `stride` apart; lower triangle read
///   in   tolerance     relative to the diagonal entry that the pivot started from
///   out  H             [n, n]  lower triangle holds L; the strict upper triangle of diagonal
///                              tiles is undefined
///   out  inverse_diag  [n]     1 / L_ii; NaN or 0 as Pivot says
///
/// n is a multiple of the tile; pad with identity rows (they stay identity).
///
/// Team:    every lane calls with equal arguments; H is visible to all on entry; ends with a sync.
/// Bitwise: equal for every team size, tile and block (each entry is one sum over k in order).
/// Cost:    n^3/6 fused multiply-adds, n / tile + n / block barriers. Left-looking within a block
///          of columns; what is to the right of a block is updated with all of it at once.
template <Pivot kPivot, class Team, class Scalar>
TORCHQP_HD_CALL void factor_cholesky(const Team& caller, Scalar* H, int stride, int n,
                                     Scalar* inverse_diag, double tolerance) {
  const Team team = caller;
  constexpr int kTile = tile_size_v<Team, Scalar>;
  const Scalar rejected =
      broadcast<Scalar>(kPivot == Pivot::kDrop ? 0.0 : std::numeric_limits<double>::quiet_NaN());
  if constexpr (rowwise_v<Team, Scalar>) {
    if (n > kSmall) return panel::factor_cholesky(H, stride, n, inverse_diag, tolerance, rejected);
  }
  constexpr int kBlock = block_size_v<Team, Scalar>;
  for (int begin = 0; begin < n; begin += kBlock) {
    const int end = begin + kBlock < n ? begin + kBlock : n;
    for (int j = begin; j < end; j += kTile) {
      const Scalar* row = H + j * stride + begin;
      const int depth = j - begin;
      // Every lane factors the diagonal tile for itself: cheaper than waiting for one lane to
      // publish it.
      Scalar diagonal[kTile][kTile], inverse[kTile], least[kTile];
      load_tile(diagonal, H + j * stride + j, stride);
      TORCHQP_UNROLL
      for (int c = 0; c < kTile; ++c)
        least[c] =
            (begin == 0 ? diagonal[c][c] : inverse_diag[j + c]) * broadcast<Scalar>(tolerance);
      subtract_row_products(diagonal, row, stride, row, stride, depth);
      TORCHQP_UNROLL
      for (int c = 0; c < kTile; ++c) {
        inverse[c] = select(diagonal[c][c] > maximum(least[c], broadcast<Scalar>(0)),
                            reciprocal_sqrt(diagonal[c][c]), rejected);
        TORCHQP_UNROLL
        for (int r = c; r < kTile; ++r) diagonal[r][c] = diagonal[r][c] * inverse[c];
        TORCHQP_UNROLL
        for (int k = c + 1; k < kTile; ++k) {
          TORCHQP_UNROLL
          for (int r = k; r < kTile; ++r)
            diagonal[r][k] = fnma(diagonal[r][c], diagonal[k][c], diagonal[r][k]);
        }
      }
      team.for_each_tile(j + kTile, n, kTile, [&](int i) {
        Scalar tile[kTile][kTile];
        load_tile(tile, H + i * stride + j, stride);
        subtract_row_products(tile, H + i * stride + begin, stride, row, stride, depth);
        solve_tile(tile, diagonal, inverse);
        store_tile(H + i * stride + j, stride, tile);
      });
      team.template sync<Site::kCholeskyColumn>();  // the next column, and what is to the right of
                                                    // the block, read every row below this one
      team.single([&] {  // which all lanes have read; no later column reads it
        store_tile(H + j * stride + j, stride, diagonal);
        TORCHQP_UNROLL
        for (int c = 0; c < kTile; ++c) inverse_diag[j + c] = inverse[c];
      });
    }
    if (end == n) break;
    if (Scalar* stage = team.template stage<Scalar>()) {
      Scalar* trailing = H + int64_t{end} * stride + end;
      if (begin == 0) {
        // The product waits between what it reads and what it writes.
        team.for_each(n - end, [&](int i) { inverse_diag[end + i] = trailing[i * (stride + 1)]; });
      }
      const Scalar* left = H + int64_t{end} * stride + begin;
      staged::multiply_rows<true>(team, stage, left, stride, n - end, left, stride, n - end,
                                  end - begin, trailing, stride, Part::kLower, true, false);
      team.template sync<Site::kCholeskyTrailing>();
      continue;
    }
    team.for_each_tile_pair(n - end, n - end, kTile, true, [&](int below, int right) {
      const int i = end + below, j = end + right;
      Scalar tile[kTile][kTile];
      load_tile(tile, H + i * stride + j, stride);
      if (begin == 0 && i == j) {
        TORCHQP_UNROLL
        for (int c = 0; c < kTile; ++c) inverse_diag[i + c] = tile[c][c];  // what `least` is of
      }
      subtract_row_products(tile, H + i * stride + begin, stride, H + j * stride + begin, stride,
                            end - begin);
      store_tile(H + i * stride + j, stride, tile);
    });
    team.template sync<Site::kCholeskyTrailing>();  // the next block reads what other lanes updated
  }
  if (n > 0) team.template sync<Site::kCholeskyEnd>();  // callers read the diagonal
}

TORCHQP_END_ISA_NAMESPACE
}  // namespace torchqp::linalg
