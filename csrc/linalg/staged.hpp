#pragma once
// Products of the rows of two matrices by a team that has memory to stage them in.
//
// The lanes of a wide team read the same entries over and over, and rows that they read side by side
// lie far apart. So a macro tile of the result is computed at a time: a few columns of the rows that
// it needs are brought to the stage, transposed, and every lane takes a square of entries, whose
// rows and columns are spread out so that neighbours read neighbouring entries.

#include "core/pack.hpp"
#include "core/team.hpp"

namespace torchqp::linalg {
TORCHQP_BEGIN_ISA_NAMESPACE

/// Which entries of a product are wanted.
enum class Part { kAll, kLower };

namespace staged {

/// Side of the square of entries that one lane computes.
inline constexpr int kSide = 4;
/// Columns of the operands on the stage at once.
inline constexpr int kDepth = 16;
/// Lanes along the rows and the columns of a macro tile, at most.
inline constexpr int kMostAlong = 16;
/// Entries between two columns on the stage: two more than rows, so that lanes which write along a
/// row do not all meet the same bank of shared memory.
inline constexpr int kColumn = kSide * kMostAlong + 2;
/// Scalars of a stage: a piece of either operand.
inline constexpr int kScalars = 2 * kDepth * kColumn;

/// c(i, j) = from(i, j) +- sum_{k < depth} x(i, k) y(j, k), handed to `to(i, j, value)`.
///
///   in  subtract  - instead of +
///   in  along_k   the entries of x and y with neighbouring k are neighbours in memory; else those
///                 with neighbouring rows
///   in  stage     [kScalars] that all lanes see
///
/// Team:    every lane calls; x and y are visible to all on entry. from and to are called once for
///          each entry, by the same lane. Ends with the stage free and without the results visible.
/// Bitwise: equal for every team size: each entry is one sum over k ascending that begins with from.
template <bool kSubtract, class Team, class Scalar, class X, class Y, class From, class To>
TORCHQP_HD void multiply(const Team& team, Scalar* stage, int rows, int cols, int depth, Part part,
                         bool along_k, X x, Y y, From from, To to) {
  // The largest powers of two with high * wide <= lanes.
  int high = 1, wide = 1;
  while (2 * high * wide <= team.size() && (high < kMostAlong || wide < kMostAlong)) {
    if (wide <= high) {
      wide *= 2;
    } else {
      high *= 2;
    }
  }
  const bool computes = team.lane() < high * wide;
  const int my_row = team.lane() / wide, my_col = team.lane() % wide;
  const int macro_rows = kSide * high, macro_cols = kSide * wide;
  Scalar *x_stage = stage, *y_stage = stage + kDepth * kColumn;
  const auto bring = [&](Scalar* to_stage, int first, int length, int count, int k, int deep,
                         const auto& entry) {
    team.for_each(length * kDepth, [&](int at) {
      const int row = along_k ? at / kDepth : at % length,
                column = along_k ? at % kDepth : at / length;
      const bool inside = first + row < count && column < deep;
      to_stage[column * kColumn + row] =
          inside ? entry(first + row, k + column) : broadcast<Scalar>(0);
    });
  };
  for (int i = 0; i < rows; i += macro_rows) {
    const int end = part == Part::kLower && i + macro_rows < cols ? i + macro_rows : cols;
    for (int j = 0; j < end; j += macro_cols) {
      Scalar sum[kSide][kSide];
      const auto for_each_mine = [&](const auto& visit) {
        TORCHQP_UNROLL
        for (int r = 0; r < kSide; ++r) {
          TORCHQP_UNROLL
          for (int c = 0; c < kSide; ++c) {
            const int row = i + my_row + r * high, col = j + my_col + c * wide;
            const bool wanted = row < rows && col < cols && (part == Part::kAll || col <= row);
            if (computes && wanted) visit(row, col, sum[r][c]);
          }
        }
      };
      TORCHQP_UNROLL
      for (int r = 0; r < kSide; ++r) {
        TORCHQP_UNROLL
        for (int c = 0; c < kSide; ++c) sum[r][c] = broadcast<Scalar>(0);
      }
      for_each_mine([&](int row, int col, Scalar& value) { value = from(row, col); });
      for (int k = 0; k < depth; k += kDepth) {
        const int deep = depth - k < kDepth ? depth - k : kDepth;
        bring(x_stage, i, macro_rows, rows, k, deep, x);
        bring(y_stage, j, macro_cols, cols, k, deep, y);
        team.template sync<Site::kStage>();
        for (int column = 0; column < deep && computes; ++column) {
          Scalar left[kSide], right[kSide];
          TORCHQP_UNROLL
          for (int r = 0; r < kSide; ++r) left[r] = x_stage[column * kColumn + my_row + r * high];
          TORCHQP_UNROLL
          for (int c = 0; c < kSide; ++c) right[c] = y_stage[column * kColumn + my_col + c * wide];
          TORCHQP_UNROLL
          for (int r = 0; r < kSide; ++r) {
            TORCHQP_UNROLL
            for (int c = 0; c < kSide; ++c)
              sum[r][c] = kSubtract ? fnma(left[r], right[c], sum[r][c])
                                    : fused(left[r], right[c], sum[r][c]);
          }
        }
        team.template sync<Site::kStage>();  // what is on the stage has been used
      }
      for_each_mine([&](int row, int col, Scalar& value) { to(row, col, value); });
    }
  }
}

/// C +-= X Y' or, without `add`, C = X Y'; for rows of matrices as they lie in memory. `mirrored`
/// writes each entry below the diagonal above it too.
template <bool kSubtract, class Team, class Scalar>
TORCHQP_HD_CALL void multiply_rows(const Team& team, Scalar* stage, const Scalar* X, int x_stride,
                                   int rows, const Scalar* Y, int y_stride, int cols, int depth,
                                   Scalar* C, int stride, Part part, bool add, bool mirrored) {
  multiply<kSubtract>(
      team, stage, rows, cols, depth, part, true,
      [&](int i, int k) { return X[int64_t{i} * x_stride + k]; },
      [&](int j, int k) { return Y[int64_t{j} * y_stride + k]; },
      [&](int i, int j) { return add ? C[int64_t{i} * stride + j] : broadcast<Scalar>(0); },
      [&](int i, int j, Scalar value) {
        C[int64_t{i} * stride + j] = value;
        if (mirrored && j < i) C[int64_t{j} * stride + i] = value;
      });
}

}  // namespace staged
TORCHQP_END_ISA_NAMESPACE
}  // namespace torchqp::linalg
