#pragma once
// Every linalg routine on given problems: packed into Scalars and padded to the tile, in poisoned
// and guarded memory, and read back by other lanes than wrote. What the tests of this folder
// compare.

#include <gtest/gtest.h>

#include "linalg/cholesky.hpp"
#include "linalg/products.hpp"
#include "linalg/triangular.hpp"
#include "support/launch.hpp"
#include "support/packed.hpp"

namespace torchqp::linalg {

using support::Problems;
using support::Scratch;

// Rows of every matrix lie further apart than they are long, by different amounts.
inline constexpr int kGap = 3, kOtherGap = 2;

template <class Launch, class Scalar>
inline constexpr int tile_of = tile_size_v<typename Launch::Team, Scalar>;

/// Of what stands above the diagonal nothing may depend.
template <class Scalar>
void poison_above_diagonal(Scalar* block, int size, int stride) {
  for (int i = 0; i < size; ++i)
    for (int j = i + 1; j < size; ++j)
      support::poison(reinterpret_cast<Element<Scalar>*>(block + i * stride + j), width_v<Scalar>);
}

/// Whether every entry of a block beyond `cols(i)` columns of row i still is the poison it started
/// as.
template <class Scalar, class Cols>
bool untouched_beyond(const Scalar* block, int rows, int stride, Cols cols) {
  Scalar poisoned;
  support::poison(reinterpret_cast<Element<Scalar>*>(&poisoned), width_v<Scalar>);
  for (int i = 0; i + 1 < rows; ++i)  // the last row ends with its columns: Scratch looks after it
    for (int j = cols(i); j < stride; ++j)
      if (std::memcmp(block + i * stride + j, &poisoned, sizeof poisoned) != 0) return false;
  return true;
}

/// The end of the diagonal tile of row i: what routines for a lower triangle may write up to.
template <class Launch, class Scalar>
auto end_of_tile() {
  return [](int i) { return (i / tile_of<Launch, Scalar> + 1) * tile_of<Launch, Scalar>; };
}

template <class T>
struct Factor {
  Problems<T> L;             ///< [n, n], lower triangle; zeros above
  Problems<T> inverse_diag;  ///< [n]
};

template <Pivot kPivot, class Scalar, class Launch>
Factor<Element<Scalar>> run_factor_cholesky(const Launch& launch,
                                            const Problems<Element<Scalar>>& H, int n,
                                            double tolerance) {
  const int size = padded(n, tile_of<Launch, Scalar>), stride = size + kGap;
  Scratch scratch;
  Scalar* block = support::pack_matrix<Scalar>(scratch, H, n, n, size, size, stride, 1.0);
  poison_above_diagonal(block, size, stride);
  Scalar* inverse = scratch.get<Element<Scalar>, Scalar>(size);
  Scalar* L = scratch.get<Element<Scalar>, Scalar>(size * stride);
  Scalar* inverse_copy = scratch.get<Element<Scalar>, Scalar>(size);
  launch([&](const auto& team) {
    factor_cholesky<kPivot>(team, block, stride, size, inverse, tolerance);
    support::read_back(team, inverse, inverse_copy, size);
    team.for_each(size, [&](int k) {
      const int i = size - 1 - k;
      for (int j = 0; j < size; ++j)
        L[i * stride + j] = j <= i ? block[i * stride + j] : broadcast<Scalar>(0);
    });
  });
  EXPECT_TRUE(scratch.intact());
  EXPECT_TRUE(untouched_beyond(block, size, stride, end_of_tile<Launch, Scalar>()));
  return {support::unpack_matrix(L, n, n, stride), support::unpack_vector(inverse_copy, n)};
}

/// Which solve with a lower triangular factor.
enum class Solve { kLower, kLowerTransposed, kCholesky };

template <class Scalar, class Launch>
Problems<Element<Scalar>> run_solve(const Launch& launch, Solve which,
                                    const Problems<Element<Scalar>>& L,
                                    const Problems<Element<Scalar>>& inverse_diag,
                                    const Problems<Element<Scalar>>& x, int n) {
  const int size = padded(n, tile_of<Launch, Scalar>), stride = size + kGap;
  Scratch scratch;
  const Scalar* block = support::pack_matrix<Scalar>(scratch, L, n, n, size, size, stride, 1.0);
  Scalar* inverse = support::pack_vector<Scalar>(scratch, inverse_diag, n, size);
  for (int i = n; i < size; ++i) inverse[i] = broadcast<Scalar>(1);
  Scalar* solution = support::pack_vector<Scalar>(scratch, x, n, size);
  Scalar* copy = scratch.get<Element<Scalar>, Scalar>(size);
  launch([&](const auto& team) {
    switch (which) {
      case Solve::kLower:
        solve_lower(team, block, stride, size, inverse, solution);
        break;
      case Solve::kLowerTransposed:
        solve_lower_transposed(team, block, stride, size, inverse, solution);
        break;
      case Solve::kCholesky:
        solve_cholesky(team, block, stride, size, inverse, solution);
        break;
    }
    support::read_back(team, solution, copy, size);
  });
  EXPECT_TRUE(scratch.intact());
  return support::unpack_vector(copy, n);
}

template <class Scalar, class Launch>
Problems<Element<Scalar>> run_solve_lower_rows(const Launch& launch,
                                               const Problems<Element<Scalar>>& L,
                                               const Problems<Element<Scalar>>& inverse_diag,
                                               const Problems<Element<Scalar>>& X, int rows,
                                               int n) {
  const int size = padded(n, tile_of<Launch, Scalar>), stride = size + kGap;
  const int x_rows = padded(rows, tile_of<Launch, Scalar>), x_stride = size + kOtherGap;
  Scratch scratch;
  const Scalar* block = support::pack_matrix<Scalar>(scratch, L, n, n, size, size, stride, 1.0);
  Scalar* inverse = support::pack_vector<Scalar>(scratch, inverse_diag, n, size);
  for (int i = n; i < size; ++i) inverse[i] = broadcast<Scalar>(1);
  Scalar* x = support::pack_matrix<Scalar>(scratch, X, rows, n, x_rows, size, x_stride, 0.0);
  Scalar* copy = scratch.get<Element<Scalar>, Scalar>(rows * n);
  launch([&](const auto& team) {
    solve_lower_rows(team, block, stride, size, inverse, x, x_stride, x_rows);
    team.for_each(n, [&](int j) {  // by columns, as the callers read
      for (int i = 0; i < rows; ++i) copy[i * n + j] = x[i * x_stride + j];
    });
  });
  EXPECT_TRUE(scratch.intact());
  EXPECT_TRUE(untouched_beyond(x, x_rows, x_stride, [&](int) { return size; }));
  return support::unpack_matrix(copy, rows, n, n);
}

/// y (+)= A x, or y (+)= A' x.
template <Into kInto, class Scalar, class Launch>
Problems<Element<Scalar>> run_multiply(const Launch& launch, bool transposed,
                                       const Problems<Element<Scalar>>& A,
                                       const Problems<Element<Scalar>>& x,
                                       const Problems<Element<Scalar>>& y, int rows, int cols) {
  const int tile = tile_of<Launch, Scalar>;
  const int n_rows = padded(rows, tile), n_cols = padded(cols, tile), stride = n_cols + kGap;
  const int n_in = transposed ? rows : cols, n_out = transposed ? cols : rows;
  Scratch scratch;
  const Scalar* block =
      support::pack_matrix<Scalar>(scratch, A, rows, cols, n_rows, n_cols, stride, 0.0);
  const Scalar* in = support::pack_vector<Scalar>(scratch, x, n_in, padded(n_in, tile));
  Scalar* out = kInto == Into::kAdd
                    ? support::pack_vector<Scalar>(scratch, y, n_out, padded(n_out, tile))
                    : scratch.get<Element<Scalar>, Scalar>(padded(n_out, tile));
  Scalar* copy = scratch.get<Element<Scalar>, Scalar>(n_out);
  launch([&](const auto& team) {
    if (transposed) {
      multiply_transposed<kInto>(team, block, stride, n_rows, n_cols, in, out);
    } else {
      multiply<kInto>(team, block, stride, n_rows, n_cols, in, out);
    }
    support::read_back(team, out, copy, n_out);
  });
  EXPECT_TRUE(scratch.intact());
  return support::unpack_vector(copy, n_out);
}

/// A x for a symmetric A.
template <class Scalar, class Launch>
Problems<Element<Scalar>> run_multiply_symmetric(const Launch& launch,
                                                 const Problems<Element<Scalar>>& A,
                                                 const Problems<Element<Scalar>>& x, int n) {
  const int size = padded(n, tile_of<Launch, Scalar>), stride = size + kGap;
  Scratch scratch;
  const Scalar* block = support::pack_matrix<Scalar>(scratch, A, n, n, size, size, stride, 0.0);
  const Scalar* in = support::pack_vector<Scalar>(scratch, x, n, size);
  Scalar* out = scratch.get<Element<Scalar>, Scalar>(size);
  Scalar* copy = scratch.get<Element<Scalar>, Scalar>(n);
  launch([&](const auto& team) {
    multiply_symmetric(team, block, stride, size, in, out);
    support::read_back(team, out, copy, n);
  });
  EXPECT_TRUE(scratch.intact());
  return support::unpack_vector(copy, n);
}

/// A x, then A' u.
template <class Scalar, class Launch>
Problems<Element<Scalar>> run_multiply_both(const Launch& launch,
                                            const Problems<Element<Scalar>>& A,
                                            const Problems<Element<Scalar>>& x,
                                            const Problems<Element<Scalar>>& u, int rows,
                                            int cols) {
  const int tile = tile_of<Launch, Scalar>;
  const int n_rows = padded(rows, tile), n_cols = padded(cols, tile), stride = n_cols + kGap;
  Scratch scratch;
  const Scalar* block =
      support::pack_matrix<Scalar>(scratch, A, rows, cols, n_rows, n_cols, stride, 0.0);
  const Scalar* in = support::pack_vector<Scalar>(scratch, x, cols, n_cols);
  const Scalar* weight = support::pack_vector<Scalar>(scratch, u, rows, n_rows);
  Scalar* y = scratch.get<Element<Scalar>, Scalar>(n_rows);
  Scalar* v = scratch.get<Element<Scalar>, Scalar>(n_cols);
  Scalar* copy = scratch.get<Element<Scalar>, Scalar>(rows + cols);
  launch([&](const auto& team) {
    multiply_both(team, block, stride, n_rows, n_cols, in, y, weight, v);
    support::read_back(team, y, copy, rows);
    support::read_back(team, v, copy + rows, cols);
  });
  EXPECT_TRUE(scratch.intact());
  return support::unpack_vector(copy, rows + cols);
}

/// P (+)= X Y'.
template <Into kInto, class Scalar, class Launch>
Problems<Element<Scalar>> run_multiply_rows(const Launch& launch,
                                            const Problems<Element<Scalar>>& X,
                                            const Problems<Element<Scalar>>& Y,
                                            const Problems<Element<Scalar>>& P, int rows, int cols,
                                            int depth, bool lower_only) {
  const int tile = tile_of<Launch, Scalar>;
  const int n_rows = padded(rows, tile), n_cols = padded(cols, tile), depth_ = padded(depth, tile);
  const int x_stride = depth_ + kGap, y_stride = lower_only ? x_stride : depth_ + kOtherGap;
  const int stride = n_cols + kGap;
  Scratch scratch;
  const Scalar* x =
      support::pack_matrix<Scalar>(scratch, X, rows, depth, n_rows, depth_, x_stride, 0.0);
  const Scalar* y = lower_only ? x
                               : support::pack_matrix<Scalar>(scratch, Y, cols, depth, n_cols,
                                                              depth_, y_stride, 0.0);
  Scalar* p =
      kInto == Into::kAdd
          ? support::pack_matrix<Scalar>(scratch, P, rows, cols, n_rows, n_cols, stride, 0.0)
          : scratch.get<Element<Scalar>, Scalar>((n_rows - 1) * stride + n_cols);
  Scalar* copy = scratch.get<Element<Scalar>, Scalar>(rows * cols);
  launch([&](const auto& team) {
    multiply_rows<kInto>(team, x, x_stride, n_rows, y, y_stride, n_cols, depth_, p, stride,
                         lower_only);
    team.for_each(cols, [&](int j) {
      for (int i = 0; i < rows; ++i) copy[i * cols + j] = p[i * stride + j];
    });
  });
  EXPECT_TRUE(scratch.intact());
  EXPECT_TRUE(untouched_beyond(p, n_rows, stride, [&](int) { return n_cols; }));
  return support::unpack_matrix(copy, rows, cols, cols);
}

/// P - X X'.
template <class Scalar, class Launch>
Problems<Element<Scalar>> run_subtract_gram(const Launch& launch,
                                            const Problems<Element<Scalar>>& X,
                                            const Problems<Element<Scalar>>& P, int rows,
                                            int depth) {
  const int tile = tile_of<Launch, Scalar>;
  const int n_rows = padded(rows, tile), depth_ = padded(depth, tile);
  const int x_stride = depth_ + kGap, stride = n_rows + kOtherGap;
  Scratch scratch;
  const Scalar* x =
      support::pack_matrix<Scalar>(scratch, X, rows, depth, n_rows, depth_, x_stride, 0.0);
  Scalar* p = support::pack_matrix<Scalar>(scratch, P, rows, rows, n_rows, n_rows, stride, 1.0);
  Scalar* copy = scratch.get<Element<Scalar>, Scalar>(rows * rows);
  launch([&](const auto& team) {
    subtract_gram(team, x, x_stride, n_rows, depth_, p, stride);
    team.for_each(rows, [&](int j) {
      for (int i = 0; i < rows; ++i) copy[i * rows + j] = p[i * stride + j];
    });
  });
  EXPECT_TRUE(scratch.intact());
  EXPECT_TRUE(untouched_beyond(p, n_rows, stride, [&](int) { return n_rows; }));
  return support::unpack_matrix(copy, rows, rows, rows);
}

/// Lower triangle of Q + G' diag(weight) G; zeros above.
template <class Scalar, class Launch>
Problems<Element<Scalar>> run_add_weighted_gram(const Launch& launch,
                                                const Problems<Element<Scalar>>& Q,
                                                const Problems<Element<Scalar>>& G,
                                                const Problems<Element<Scalar>>& weight, int n,
                                                int rows) {
  const int tile = tile_of<Launch, Scalar>;
  const int size = padded(n, tile), n_rows = padded(rows, tile), stride = size + kGap;
  Scratch scratch;
  Scalar* q = support::pack_matrix<Scalar>(scratch, Q, n, n, size, size, stride, 1.0);
  poison_above_diagonal(q, size, stride);
  const Scalar* g = support::pack_matrix<Scalar>(scratch, G, rows, n, n_rows, size, stride, 0.0);
  const Scalar* w = support::pack_vector<Scalar>(scratch, weight, rows, n_rows);
  Scalar* h = scratch.get<Element<Scalar>, Scalar>((size - 1) * stride + size);
  Scalar* copy = scratch.get<Element<Scalar>, Scalar>(n * n);
  launch([&](const auto& team) {
    add_weighted_gram(team, q, g, stride, n, n_rows, w, h);
    team.for_each(n, [&](int j) {
      for (int i = 0; i < n; ++i)
        copy[i * n + j] = i < j ? broadcast<Scalar>(0) : h[i * stride + j];
    });
  });
  EXPECT_TRUE(scratch.intact());
  EXPECT_TRUE(untouched_beyond(h, size, stride, end_of_tile<Launch, Scalar>()));
  return support::unpack_matrix(copy, n, n, n);
}

}  // namespace torchqp::linalg
