#pragma once
// The matrix routines of one problem, along rows: see vector.hpp. Storage is row-major throughout.
//
// The columns of a destination are taken in panels, one or two registers wide. The operand that
// stands along the panel's columns is first transposed into a small contiguous buffer; the rows of
// the other operand then meet it with one broadcast an entry, several rows at a time. The depth is
// cut where the buffer ends, and sums wait in the destination.

#include "linalg/vector.hpp"

namespace torchqp::linalg::panel {
TORCHQP_BEGIN_ISA_NAMESPACE

/// Depth of the buffer: two registers wide, it takes half of a 32 KB cache.
inline constexpr int kDepth = 128;
/// Rows that meet a panel at once, with two sums each.
inline constexpr int kRows = kVectorBytes == 64 ? 8 : 6;

enum class Sign { kPlus, kMinus };
/// How the entries x(r, k) lie: rows of a matrix, or packed next to each other for each k.
enum class Rows { kStrided, kPacked };

/// c(r, :) +-= sum_{k < depth} x(r, k) panel(k, :) for `rows` rows, R at a time.
///
/// `width` columns of c are read and written; from_zero reads none.
template <Sign kSign, Rows kLayout, int R, int C, class T>
TORCHQP_HD void add_strips(const T* x, int x_stride, const T* panel, int panel_stride, int depth,
                           T* c, int c_stride, int rows, int width, bool from_zero) {
  constexpr int kLanes = lanes_v<T>;
  for (; rows >= R; rows -= R) {
    Vector<T> sum[R][C];
    TORCHQP_UNROLL
    for (int r = 0; r < R; ++r) {
      TORCHQP_UNROLL
      for (int b = 0; b < C; ++b)
        sum[r][b] =
            from_zero ? splat(T(0)) : load_some(c + r * c_stride + b * kLanes, width - b * kLanes);
    }
    const T* p = panel;
    for (int k = 0; k < depth; ++k, p += panel_stride) {
      Vector<T> column[C];
      TORCHQP_UNROLL
      for (int b = 0; b < C; ++b) column[b] = load(p + b * kLanes);
      TORCHQP_UNROLL
      for (int r = 0; r < R; ++r) {
        const Vector<T> row =
            splat(kLayout == Rows::kPacked ? x[k * kRows + r] : x[r * x_stride + k]);
        TORCHQP_UNROLL
        for (int b = 0; b < C; ++b)
          sum[r][b] = kSign == Sign::kMinus ? fnma(row, column[b], sum[r][b])
                                            : fused(row, column[b], sum[r][b]);
      }
    }
    TORCHQP_UNROLL
    for (int r = 0; r < R; ++r) {
      TORCHQP_UNROLL
      for (int b = 0; b < C; ++b)
        store_some(c + r * c_stride + b * kLanes, sum[r][b], width - b * kLanes);
    }
    x += kLayout == Rows::kPacked ? R : R * x_stride;
    c += R * c_stride;
  }
  if constexpr (R > 1)
    add_strips<kSign, kLayout, R / 2, C>(x, x_stride, panel, panel_stride, depth, c, c_stride, rows,
                                         width, from_zero);
}

template <Sign kSign, int C, class T>
TORCHQP_HD_CALL void add_rows(const T* x, int x_stride, const T* panel, int depth, T* c,
                              int c_stride, int rows, int width, bool from_zero) {
  add_strips<kSign, Rows::kStrided, kRows, C>(x, x_stride, panel, C * lanes_v<T>, depth, c,
                                              c_stride, rows, width, from_zero);
}

/// panel(k, c) = y(c, k) for k < depth and c < width; zero in the panel's other columns.
template <int C, class T>
TORCHQP_HD_CALL void pack_panel(const T* y, int stride, int width, int depth, T* panel) {
  constexpr int kLanes = lanes_v<T>;
  for (int b = 0; b < C; ++b) {
    const T* from = y + b * kLanes * stride;
    const int rows = width - b * kLanes;
    for (int k = 0; k < depth; k += kLanes) {
      Vector<T> block[kLanes];
      TORCHQP_UNROLL
      for (int r = 0; r < kLanes; ++r)
        block[r] = r < rows ? load_some(from + r * stride + k, depth - k) : splat(T(0));
      transpose<T>(block);
      TORCHQP_UNROLL
      for (int t = 0; t < kLanes; ++t)
        if (k + t < depth) store(panel + (k + t) * C * kLanes + b * kLanes, block[t]);
    }
  }
}

/// A diagonal block of a lower triangular matrix, by columns: entry (r, c) at at[c][r]. Above the
/// diagonal and beyond the matrix it holds numbers of no meaning that nothing else depends on.
template <class T, int C>
struct Block {
  static constexpr int kSize = C * lanes_v<T>;
  alignas(64) T at[kSize][kSize];
  T inverse[kSize];  ///< 1 / at[c][c], 0 beyond the matrix

  TORCHQP_HD void load_lower(const T* from, int stride, int width) {
    constexpr int kLanes = lanes_v<T>;
    for (int row = 0; row < C; ++row)
      for (int col = 0; col <= row; ++col) {
        Vector<T> block[kLanes];
        TORCHQP_UNROLL
        for (int r = 0; r < kLanes; ++r) {
          const int i = row * kLanes + r;
          block[r] = i < width
                         ? load_first(from + i * stride + col * kLanes, row == col ? r + 1 : kLanes)
                         : splat(T(0));
        }
        transpose<T>(block);
        TORCHQP_UNROLL
        for (int c = 0; c < kLanes; ++c) store(at[col * kLanes + c] + row * kLanes, block[c]);
      }
    for (int c = kLanes; c < kSize; ++c)
      for (int b = 0; b < c / kLanes; ++b) store(at[c] + b * kLanes, splat(T(0)));
  }

  TORCHQP_HD void store_lower(T* to, int stride, int width) const {
    constexpr int kLanes = lanes_v<T>;
    for (int row = 0; row < C; ++row)
      for (int col = 0; col <= row; ++col) {
        Vector<T> block[kLanes];
        TORCHQP_UNROLL
        for (int c = 0; c < kLanes; ++c) block[c] = load(at[col * kLanes + c] + row * kLanes);
        transpose<T>(block);
        TORCHQP_UNROLL
        for (int r = 0; r < kLanes; ++r) {
          const int i = row * kLanes + r;
          if (i < width)
            store_first(to + i * stride + col * kLanes, block[r], row == col ? r + 1 : kLanes);
        }
      }
  }
};

/// Rows x <- x L^-T for a diagonal block L: `width` columns of `rows` rows.
template <int C, class T>
TORCHQP_HD_CALL void solve_rows(const Block<T, C>& L, T* x, int stride, int rows, int width) {
  constexpr int kLanes = lanes_v<T>;
  for (; rows > 0; rows -= kLanes, x += kLanes * stride) {
    alignas(64) T solved[C * kLanes][kLanes];  // column by column, so that the rows are the lanes
    TORCHQP_UNROLL
    for (int b = 0; b < C; ++b) {
      Vector<T> block[kLanes];
      TORCHQP_UNROLL
      for (int r = 0; r < kLanes; ++r)
        block[r] =
            r < rows ? load_some(x + r * stride + b * kLanes, width - b * kLanes) : splat(T(0));
      transpose<T>(block);
      for (int c = 0; c < b * kLanes; ++c) {
        const Vector<T> known = load(solved[c]);
        TORCHQP_UNROLL
        for (int k = 0; k < kLanes; ++k)
          block[k] = fnma(known, splat(L.at[c][b * kLanes + k]), block[k]);
      }
      TORCHQP_UNROLL
      for (int c = 0; c < kLanes; ++c) {
        block[c] = block[c] * splat(L.inverse[b * kLanes + c]);
        if (b + 1 < C) store(solved[b * kLanes + c], block[c]);
        TORCHQP_UNROLL
        for (int k = c + 1; k < kLanes; ++k)
          block[k] = fnma(block[c], splat(L.at[b * kLanes + c][b * kLanes + k]), block[k]);
      }
      transpose<T>(block);
      TORCHQP_UNROLL
      for (int r = 0; r < kLanes; ++r)
        if (r < rows) store_some(x + r * stride + b * kLanes, block[r], width - b * kLanes);
    }
  }
}

/// Factors a block in place. A pivot that is not above least[c] >= 0 gets `rejected` for 1 / L_cc.
template <int C, class T>
TORCHQP_HD void factor_block(Block<T, C>& L, int width, const T* least, T rejected) {
  constexpr int kLanes = lanes_v<T>;
  T pivot = L.at[0][0];
  for (int c = 0; c < width; ++c) {
    // A branch, not a choice: what follows need not wait for the comparison.
    T inverse = rejected;
    if (pivot > least[c]) inverse = reciprocal(square_root(pivot));
    L.inverse[c] = inverse;
    if (c + 1 < width) {
      // The next pivot waits for nothing but this one.
      const T below = L.at[c][c + 1] * inverse;
      pivot = fnma(below, below, L.at[c + 1][c + 1]);
    }
    Vector<T> column[C];
    TORCHQP_UNROLL
    for (int b = 0; b < C; ++b) {
      column[b] = load(L.at[c] + b * kLanes) * splat(inverse);
      store(L.at[c] + b * kLanes, column[b]);
    }
    TORCHQP_UNROLL
    for (int b = 0; b < C; ++b) {
      const int end = (b + 1) * kLanes < width ? (b + 1) * kLanes : width;
      for (int k = c + 1 > b * kLanes ? c + 1 : b * kLanes; k < end; ++k) {
        const Vector<T> entry = splat(L.at[c][k]);
        TORCHQP_UNROLL
        for (int d = b; d < C; ++d)
          store(L.at[k] + d * kLanes, fnma(entry, column[d], load(L.at[k] + d * kLanes)));
      }
    }
  }
  for (int c = width; c < L.kSize; ++c) L.inverse[c] = 0;
}

/// Columns j to j + width of the factor, width <= C registers.
template <int C, class T>
TORCHQP_HD_CALL void factor_panel(T* H, int stride, int n, int j, T* inverse_diag, double tolerance,
                                  T rejected) {
  Block<T, C> L;
  constexpr int kSize = Block<T, C>::kSize;
  const int width = n - j < kSize ? n - j : kSize;
  T* diagonal = H + j * stride + j;
  T* below = diagonal + width * stride;
  T least[kSize];
  for (int c = 0; c < width; ++c)
    least[c] = maximum(diagonal[c * stride + c] * static_cast<T>(tolerance), T(0));
  L.load_lower(diagonal, stride, width);
  alignas(64) T panel[kDepth * kSize];
  for (int k = 0; k < j; k += kDepth) {
    const int depth = j - k < kDepth ? j - k : kDepth;
    pack_panel<C>(H + j * stride + k, stride, width, depth, panel);
    add_rows<Sign::kMinus, C>(H + j * stride + k, stride, panel, depth, L.at[0], kSize, width,
                              kSize, false);
    add_rows<Sign::kMinus, C>(H + (j + width) * stride + k, stride, panel, depth, below, stride,
                              n - j - width, width, false);
  }
  factor_block<C>(L, width, least, rejected);
  L.store_lower(diagonal, stride, width);
  for (int c = 0; c < width; ++c) inverse_diag[j + c] = L.inverse[c];
  solve_rows<C>(L, below, stride, n - j - width, width);
}

/// See linalg::factor_cholesky. A rejected pivot gets `rejected` for its 1 / L_ii.
template <class T>
TORCHQP_HD void factor_cholesky(T* H, int stride, int n, T* inverse_diag, double tolerance,
                                T rejected) {
  constexpr int kLanes = lanes_v<T>;
  int j = 0;
  for (; j + kLanes < n; j += 2 * kLanes)
    factor_panel<2>(H, stride, n, j, inverse_diag, tolerance, rejected);
  if (j < n) factor_panel<1>(H, stride, n, j, inverse_diag, tolerance, rejected);
}

template <int C, class T>
TORCHQP_HD_CALL void solve_panel(const T* L, int stride, int n, int j, const T* inverse_diag, T* X,
                                 int x_stride, int rows) {
  Block<T, C> diagonal;
  constexpr int kSize = Block<T, C>::kSize;
  const int width = n - j < kSize ? n - j : kSize;
  diagonal.load_lower(L + j * stride + j, stride, width);
  for (int c = 0; c < kSize; ++c) diagonal.inverse[c] = c < width ? inverse_diag[j + c] : T(0);
  alignas(64) T panel[kDepth * kSize];
  for (int k = 0; k < j; k += kDepth) {
    const int depth = j - k < kDepth ? j - k : kDepth;
    pack_panel<C>(L + j * stride + k, stride, width, depth, panel);
    add_rows<Sign::kMinus, C>(X + k, x_stride, panel, depth, X + j, x_stride, rows, width, false);
  }
  solve_rows<C>(diagonal, X + j, x_stride, rows, width);
}

/// See linalg::solve_lower_rows.
template <class T>
TORCHQP_HD void solve_lower_rows(const T* L, int stride, int n, const T* inverse_diag, T* X,
                                 int x_stride, int rows) {
  constexpr int kLanes = lanes_v<T>;
  int j = 0;
  for (; j + kLanes < n; j += 2 * kLanes)
    solve_panel<2>(L, stride, n, j, inverse_diag, X, x_stride, rows);
  if (j < n) solve_panel<1>(L, stride, n, j, inverse_diag, X, x_stride, rows);
}

template <Sign kSign, int C, class T>
TORCHQP_HD_CALL void multiply_panel(const T* X, int x_stride, int rows, const T* Y, int y_stride,
                                    int width, int depth, T* P, int stride, bool from_zero) {
  constexpr int kSize = C * lanes_v<T>;
  alignas(64) T panel[kDepth * kSize];
  for (int k = 0; k < depth || k == 0; k += kDepth) {
    const int here = depth - k < kDepth ? depth - k : kDepth;
    pack_panel<C>(Y + k, y_stride, width, here, panel);
    add_rows<kSign, C>(X + k, x_stride, panel, here, P, stride, rows, width, from_zero && k == 0);
  }
}

/// P(i, :) +-= X Y', or only the entries with j <= i and those of the panel that holds the diagonal.
template <Sign kSign, class T>
TORCHQP_HD void multiply_rows(const T* X, int x_stride, int rows, const T* Y, int y_stride,
                              int cols, int depth, T* P, int stride, bool lower_only,
                              bool from_zero) {
  constexpr int kLanes = lanes_v<T>;
  for (int j = 0; j < cols; j += 2 * kLanes) {
    const int i = lower_only ? j : 0, left = cols - j;
    const T* x = X + i * x_stride;
    const T* y = Y + j * y_stride;
    T* p = P + i * stride + j;
    if (left > kLanes) {
      multiply_panel<kSign, 2>(x, x_stride, rows - i, y, y_stride,
                               left < 2 * kLanes ? left : 2 * kLanes, depth, p, stride, from_zero);
    } else {
      multiply_panel<kSign, 1>(x, x_stride, rows - i, y, y_stride, left, depth, p, stride,
                               from_zero);
    }
  }
}

/// P(j, i) = P(i, j) for j < i.
template <class T>
TORCHQP_HD_CALL void mirror(T* P, int stride, int n) {
  constexpr int kLanes = lanes_v<T>;
  for (int i = 0; i < n; i += kLanes)
    for (int j = 0; j <= i; j += kLanes) {
      Vector<T> block[kLanes];
      TORCHQP_UNROLL
      for (int r = 0; r < kLanes; ++r)
        block[r] = i + r < n ? load_some(P + (i + r) * stride + j, i + r + 1 - j) : splat(T(0));
      Vector<T> original[kLanes];
      TORCHQP_UNROLL
      for (int r = 0; r < kLanes; ++r) original[r] = block[r];
      transpose<T>(block);
      TORCHQP_UNROLL
      for (int c = 0; c < kLanes; ++c) {
        if (i == j) block[c] = merge(block[c], original[c]);
        if (j + c < n) store_some(P + (j + c) * stride + i, block[c], n - i);
      }
    }
}

/// H(i, j) += weighted(k, i) G(k, j) for a group of rows and C registers of columns from j on, of
/// which row r has `width + r`.
template <int C, bool kWhole, class T>
TORCHQP_HD void add_weighted(const T* weighted, const T* G, int stride, int depth, T* H, int rows,
                             int width) {
  constexpr int kSize = C * lanes_v<T>;
  if constexpr (kWhole) {
    add_strips<Sign::kPlus, Rows::kPacked, kRows, C>(weighted, 0, G, stride, depth, H, stride, rows,
                                                     kSize, false);
  } else {
    const int most = width + rows - 1;
    alignas(64) T columns[kDepth * kSize], sums[kRows * kSize];
    for (int k = 0; k < depth; ++k) store(columns + k * kSize, load_some(G + k * stride, most));
    for (int r = 0; r < rows; ++r) store(sums + r * kSize, load_some(H + r * stride, width + r));
    add_strips<Sign::kPlus, Rows::kPacked, kRows, C>(weighted, 0, columns, kSize, depth, sums,
                                                     kSize, rows, kSize, false);
    for (int r = 0; r < rows; ++r) store_some(H + r * stride, load(sums + r * kSize), width + r);
  }
}

/// See linalg::add_weighted_gram.
template <class T>
TORCHQP_HD_CALL void add_weighted_gram(const T* Q, const T* G, int stride, int n, int rows,
                                       const T* weight, T* H) {
  constexpr int kLanes = lanes_v<T>;
  for (int i = 0; i < n; ++i)
    for (int j = 0; j <= i; j += kLanes)
      store_some(H + i * stride + j, load_some(Q + i * stride + j, i + 1 - j), i + 1 - j);
  for (int k = 0; k < rows; k += kDepth) {
    const int depth = rows - k < kDepth ? rows - k : kDepth;
    const T* g = G + k * stride;
    for (int i = 0; i < n; i += kRows) {
      const int group = n - i < kRows ? n - i : kRows;
      alignas(64) T weighted[kDepth * kRows];
      for (int t = 0; t < depth; ++t)
        for (int r = 0; r < group; ++r)
          weighted[t * kRows + r] = g[t * stride + i + r] * weight[k + t];
      T* row = H + i * stride;
      int j = 0;
      for (; j + 2 * kLanes <= i + 1; j += 2 * kLanes)
        add_weighted<2, true>(weighted, g + j, stride, depth, row + j, group, 0);
      for (; j + kLanes <= i + 1; j += kLanes)
        add_weighted<1, true>(weighted, g + j, stride, depth, row + j, group, 0);
      for (; j < i + group; j += kLanes)
        add_weighted<1, false>(weighted, g + j, stride, depth, row + j, group, i + 1 - j);
    }
  }
}

TORCHQP_END_ISA_NAMESPACE
}  // namespace torchqp::linalg::panel
