#pragma once
// The matrix-vector routines of one problem, along rows: see vector.hpp.
//
// A sum along a row has one entry a step, so rows become lanes: square blocks are transposed in
// registers. A sum along a column needs nothing of the kind.

#include "linalg/vector.hpp"

namespace torchqp::linalg::strip {
TORCHQP_BEGIN_ISA_NAMESPACE

/// Rows that are added to a vector in one pass over it.
inline constexpr int kRows = 8;
/// Up to this size a solve waits for one entry after the other, and tiles are the shorter wait.
inline constexpr int kSmallSolve = 40;
/// A symmetric matrix beyond this size is read by halves: it comes from a shared cache or memory.
inline constexpr size_t kCacheBytes = size_t{1} << 22;
/// Size of the triangles that a solve takes from the diagonal.
inline constexpr int kBlock = 128;

/// y += A' x, R rows at a time.
template <int R, class T>
TORCHQP_HD void add_scaled_rows(const T* A, int stride, const T* x, int rows, int cols, T* y,
                                bool from_zero) {
  constexpr int kLanes = lanes_v<T>;
  for (; rows >= R; rows -= R) {
    Vector<T> scale[R];
    TORCHQP_UNROLL
    for (int r = 0; r < R; ++r) scale[r] = splat(x[r]);
    int j = 0;
    for (; j + kLanes <= cols; j += kLanes) {
      Vector<T> sum = from_zero ? splat(T(0)) : load(y + j);
      TORCHQP_UNROLL
      for (int r = 0; r < R; ++r) sum = fused(load(A + r * stride + j), scale[r], sum);
      store(y + j, sum);
    }
    if (j < cols) {
      Vector<T> sum = from_zero ? splat(T(0)) : load_first(y + j, cols - j);
      TORCHQP_UNROLL
      for (int r = 0; r < R; ++r)
        sum = fused(load_first(A + r * stride + j, cols - j), scale[r], sum);
      store_first(y + j, sum, cols - j);
    }
    A += R * stride, x += R;
    from_zero = false;
  }
  if constexpr (R > 1) add_scaled_rows<R / 2>(A, stride, x, rows, cols, y, from_zero);
}

/// See linalg::multiply_transposed.
template <class T>
TORCHQP_HD_CALL void multiply_transposed(const T* A, int stride, int rows, int cols, const T* x,
                                         T* y, bool from_zero) {
  if (from_zero && rows == 0)
    for (int j = 0; j < cols; ++j) y[j] = 0;
  add_scaled_rows<kRows>(A, stride, x, rows, cols, y, from_zero);
}

/// A square block, row by row; zero beyond `rows` and `cols`.
template <class T>
TORCHQP_HD void load_rows(Vector<T> (&block)[lanes_v<T>], const T* A, int stride, int rows,
                          int cols) {
  constexpr int kLanes = lanes_v<T>;
  if (rows >= kLanes && cols >= kLanes) {
    TORCHQP_UNROLL
    for (int r = 0; r < kLanes; ++r) block[r] = load(A + r * stride);
  } else {
    TORCHQP_UNROLL
    for (int r = 0; r < kLanes; ++r)
      block[r] = r < rows ? load_some(A + r * stride, cols) : splat(T(0));
  }
}

enum class Sign { kPlus, kMinus };

/// sum +- the first `count` registers of a block, each times its entry of x.
template <Sign kSign, class T>
TORCHQP_HD Vector<T> add_scaled(const Vector<T> (&block)[lanes_v<T>], const T* x, int count,
                                Vector<T> sum) {
  constexpr int kLanes = lanes_v<T>;
  const bool whole = count >= kLanes;
  TORCHQP_UNROLL
  for (int c = 0; c < kLanes; ++c)
    if (whole || c < count)
      sum = kSign == Sign::kPlus ? fused(block[c], splat(x[c]), sum)
                                 : fnma(block[c], splat(x[c]), sum);
  return sum;
}

/// y +-= A x for kGroups registers of rows.
template <Sign kSign, int kGroups, class T>
TORCHQP_HD void multiply_groups(const T* A, int stride, int rows, int cols, const T* x, T* y,
                                bool from_zero) {
  constexpr int kLanes = lanes_v<T>;
  Vector<T> sum[kGroups];
  TORCHQP_UNROLL
  for (int g = 0; g < kGroups; ++g)
    sum[g] = from_zero ? splat(T(0)) : load_some(y + g * kLanes, rows - g * kLanes);
  for (int k = 0; k < cols; k += kLanes) {
    TORCHQP_UNROLL
    for (int g = 0; g < kGroups; ++g) {
      Vector<T> block[kLanes];
      load_rows(block, A + g * kLanes * stride + k, stride, rows - g * kLanes, cols - k);
      transpose<T>(block);
      sum[g] = add_scaled<kSign>(block, x + k, cols - k, sum[g]);
    }
  }
  TORCHQP_UNROLL
  for (int g = 0; g < kGroups; ++g) store_some(y + g * kLanes, sum[g], rows - g * kLanes);
}

/// y +-= A x, or with from_zero y = +-A x.
template <Sign kSign, class T>
TORCHQP_HD_CALL void multiply(const T* A, int stride, int rows, int cols, const T* x, T* y,
                              bool from_zero) {
  constexpr int kLanes = lanes_v<T>;
  int i = 0;
  for (; i + kLanes < rows; i += 2 * kLanes)
    multiply_groups<kSign, 2>(A + i * stride, stride, rows - i, cols, x, y + i, from_zero);
  if (i < rows)
    multiply_groups<kSign, 1>(A + i * stride, stride, rows - i, cols, x, y + i, from_zero);
}

/// Right-looking, so that the rows of one register wait for nothing but the columns before.
template <class T>
TORCHQP_HD_CALL void solve_lower_block(const T* L, int stride, int n, const T* inverse_diag, T* x) {
  constexpr int kLanes = lanes_v<T>;
  for (int j = 0; j < n; j += kLanes) {
    const T* diagonal = L + j * stride + j;
    T solved[kLanes];
    TORCHQP_UNROLL
    for (int c = 0; c < kLanes; ++c) {
      if (j + c >= n) return;
      T sum = x[j + c];
      TORCHQP_UNROLL
      for (int k = 0; k < c; ++k) sum = fnma(diagonal[c * stride + k], solved[k], sum);
      x[j + c] = solved[c] = sum * inverse_diag[j + c];
    }
    for (int i = j + kLanes; i < n; i += kLanes) {
      Vector<T> block[kLanes];
      load_rows(block, L + i * stride + j, stride, n - i, kLanes);
      transpose<T>(block);
      store_some(x + i, add_scaled<Sign::kMinus>(block, solved, kLanes, load_some(x + i, n - i)),
                 n - i);
    }
  }
}

/// See linalg::solve_lower. A block's rows are read from end to end once.
template <class T>
TORCHQP_HD void solve_lower(const T* L, int stride, int n, const T* inverse_diag, T* x) {
  for (int i = 0; i < n; i += kBlock) {
    const int rows = n - i < kBlock ? n - i : kBlock;
    if (i > 0) multiply<Sign::kMinus>(L + i * stride, stride, rows, i, x, x + i, false);
    solve_lower_block(L + i * stride + i, stride, rows, inverse_diag + i, x + i);
  }
}

/// See linalg::multiply_both. Rows are taken by eight at least, or v would come and go too often.
template <class T>
TORCHQP_HD_CALL void multiply_both(const T* A, int stride, int rows, int cols, const T* x, T* y,
                                   const T* u, T* v) {
  constexpr int kLanes = lanes_v<T>, kGroups = kLanes < 8 ? 8 / kLanes : 1;
  for (int i = 0; i < rows; i += kGroups * kLanes) {
    Vector<T> sum[kGroups];
    TORCHQP_UNROLL
    for (int g = 0; g < kGroups; ++g) sum[g] = splat(T(0));
    for (int k = 0; k < cols; k += kLanes) {
      Vector<T> column = i == 0 ? splat(T(0)) : load_some(v + k, cols - k);
      TORCHQP_UNROLL
      for (int g = 0; g < kGroups; ++g) {
        const int first = i + g * kLanes;
        Vector<T> block[kLanes];
        load_rows(block, A + first * stride + k, stride, rows - first, cols - k);
        column = add_scaled<Sign::kPlus>(block, u + first, rows - first, column);
        transpose<T>(block);
        sum[g] = add_scaled<Sign::kPlus>(block, x + k, cols - k, sum[g]);
      }
      store_some(v + k, column, cols - k);
    }
    TORCHQP_UNROLL
    for (int g = 0; g < kGroups; ++g) store_some(y + i + g * kLanes, sum[g], rows - i - g * kLanes);
  }
  if (rows == 0)
    for (int j = 0; j < cols; ++j) v[j] = 0;
}

/// See linalg::multiply_symmetric: reads the lower triangle. Row i gives y_i what stands left of
/// the diagonal and the entries above what mirrors it, so that each sum still ascends.
template <class T>
TORCHQP_HD_CALL void multiply_symmetric(const T* A, int stride, int n, const T* x, T* y) {
  constexpr int kLanes = lanes_v<T>;
  for (int i = 0; i < n; i += kLanes) {
    const int rows = n - i < kLanes ? n - i : kLanes;
    Vector<T> sum = splat(T(0)), block[kLanes], row[kLanes];
    for (int k = 0; k < i; k += kLanes) {
      const Vector<T> column = load(y + k);
      load_rows(block, A + i * stride + k, stride, rows, kLanes);
      store(y + k, add_scaled<Sign::kPlus>(block, x + i, rows, column));
      transpose<T>(block);
      sum = add_scaled<Sign::kPlus>(block, x + k, kLanes, sum);
    }
    TORCHQP_UNROLL
    for (int r = 0; r < kLanes; ++r)
      row[r] = block[r] = r < rows ? load_first(A + (i + r) * stride + i, r + 1) : splat(T(0));
    transpose<T>(block);
    TORCHQP_UNROLL
    for (int c = 0; c < kLanes; ++c) block[c] = merge(block[c], row[c]);
    sum = add_scaled<Sign::kPlus>(block, x + i, rows, sum);
    store_some(y + i, sum, rows);
  }
}

TORCHQP_END_ISA_NAMESPACE
}  // namespace torchqp::linalg::strip
