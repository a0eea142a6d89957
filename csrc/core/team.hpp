#pragma once
// The Team vocabulary: who cooperates on one problem.
//
// A numerical routine is a function template over Team and is called by every lane with equal
// arguments. Work is shared out: for_each gives entry i to lane i % size() every time, so that a lane
// may read what it wrote itself; whatever another lane wrote may be read only after a sync. Scalars
// that steer the control flow (step lengths, norms, masks) are equal on all lanes, so that a branch
// is the same on all of them: each lane goes through its entries, and max_all, add_all or sums make
// one value of what the lanes have. None of them depends on the size of the team.
//
// A routine whose loops wait copies its team first: what it reads of it then stays in registers, where
// a reference would be read anew after each wait.
//
// A team offers
//   lane(), size(), sync<Site>(), single(f)
//   for_each(count, f)                       f(i) for 0 <= i < count
//   for_each_tile(begin, end, step, f)       f(i) for i = begin, begin + step, ... < end
//   for_each_tile_pair(rows, cols, step, lower, f)
//                                            f(i, j) for i, j = 0, step, ... < rows, cols, shared
//                                            out over all pairs; with `lower` rows = cols, j <= i
// and three exchanges, each of which is a sync too: what a lane read before it may be overwritten
// after it, and what it wrote before it may be read after it.
//   max_all<Site>(values)                    the largest of each value over the lanes; values are
//                                            >= 0 or NaN, as max_norm leaves them, and a NaN of any
//                                            lane gives NaN
//   add_all<Site>(values)                    the sum of each value over the lanes; values are whole
//                                            numbers, whose sum is exact in every order
//   sums<Site>(count, result, add)           sums over 0 <= i < count of any numbers, in the order
//                                            of add_parts. add(i, partial) adds entry i to the sums
//                                            partial[]; what it reads is visible to all on entry

#include "core/pack.hpp"

namespace torchqp {

/// Barriers have names, so that a test can switch one off and see who notices.
enum class Site : int {
  kCholeskyColumn,
  kCholeskyTrailing,
  kCholeskyEnd,
  kLowerTile,
  kLowerEnd,
  kUpperTile,
  kUpperEnd,
  kRowsBlock,
  kRowsEnd,
  kMultiplyEnd,
  kMultiplyTransposedEnd,
  kGramEnd,
  kStage,
  kWeightedGramEnd,
  kFill,
  kDualSetup,
  kDualFactor,
  kDualSolve,
  kCondensedSetup,
  kCondensedFactor,
  kCondensedSolve,
  kScaling,
  kStart,
  kResiduals,
  kDirection,
  kStep,
  kBest,
  kActiveRows,
  kPivotSolve,
  kPivotRevise,
  kPolishSet,
  kPolishStep,
  kCertificate,
  kSingleRow,
  kAdjointSetup,
  kAdjointStep,
  kAdjointKeep,
  kFinish,
  kLoad,
  kStore,
  kCount,
};

TORCHQP_BEGIN_ISA_NAMESPACE

/// A sum is kept in this many parts, entry i in part i % kSumParts in the order of i, whatever the
/// size of the team.
inline constexpr int kSumParts = 8;

/// The sum of the parts.
template <class Scalar>
TORCHQP_HD Scalar add_parts(const Scalar (&part)[kSumParts]) {
  return ((part[0] + part[4]) + (part[2] + part[6])) + ((part[1] + part[5]) + (part[3] + part[7]));
}

/// One part of the sums over `count` entries; see Team::sums.
template <int kCount, class Scalar, class Add>
TORCHQP_HD void sum_part(int part, int count, Scalar (&partial)[kCount], Add add) {
  TORCHQP_UNROLL
  for (int c = 0; c < kCount; ++c) partial[c] = broadcast<Scalar>(0);
  TORCHQP_ROLLED
  for (int i = part; i < count; i += kSumParts) add(i, partial);
}

/// What Team::for_each_tile_pair gives to lane `lane` of `size`: every size-th pair, counted along
/// rows.
template <class F>
TORCHQP_HD void for_each_pair_of_lane(int lane, int size, int rows, int cols, int step, bool lower,
                                      F f) {
  const int height = (rows + step - 1) / step, width = (cols + step - 1) / step;
  if (lower) {
    int i = 0, j = lane;
    while (true) {
      for (; i < height && j > i; ++i) j -= i + 1;
      if (i >= height) return;
      f(i * step, j * step);
      j += size;
    }
  }
  if (width == 0) return;
  const int down = size / width, across = size % width;
  int i = lane / width, j = lane % width;
  while (i < height) {
    f(i * step, j * step);
    i += down, j += across;
    if (j >= width) j -= width, ++i;
  }
}

TORCHQP_END_ISA_NAMESPACE

/// One lane that does everything: the CPU's product path.
struct SerialTeam {
  TORCHQP_HD int lane() const { return 0; }
  TORCHQP_HD int size() const { return 1; }
  template <Site kSite>
  TORCHQP_HD void sync() const {}
  template <class F>
  TORCHQP_HD void for_each(int count, F f) const {
    for (int i = 0; i < count; ++i) f(i);
  }
  template <class F>
  TORCHQP_HD void for_each_tile(int begin, int end, int step, F f) const {
    for (int i = begin; i < end; i += step) f(i);
  }
  template <class F>
  TORCHQP_HD void for_each_tile_pair(int rows, int cols, int step, bool lower, F f) const {
    for (int i = 0; i < rows; i += step)
      for (int j = 0; j < (lower ? i + step : cols); j += step) f(i, j);
  }
  template <class F>
  TORCHQP_HD void single(F f) const {
    f();
  }
  template <class Scalar>
  TORCHQP_HD Scalar* stage() const {
    return nullptr;
  }
  template <Site kSite, int kCount, class Scalar>
  TORCHQP_HD void max_all(Scalar (&)[kCount]) const {}
  template <Site kSite, int kCount, class Scalar>
  TORCHQP_HD void add_all(Scalar (&)[kCount]) const {}
  template <Site kSite, int kCount, class Scalar, class Add>
  TORCHQP_HD void sums(int count, Scalar (&result)[kCount], Add add) const {
    Scalar parts[kCount][kSumParts];
    for (int part = 0; part < kSumParts; ++part) {
      Scalar partial[kCount];
      sum_part(part, count, partial, add);
      TORCHQP_UNROLL
      for (int c = 0; c < kCount; ++c) parts[c][part] = partial[c];
    }
    TORCHQP_UNROLL
    for (int c = 0; c < kCount; ++c) result[c] = add_parts(parts[c]);
  }
};

TORCHQP_BEGIN_ISA_NAMESPACE

/// Side of the register tile that one lane computes. Matrices are padded to a multiple of it.
template <class Team, class Scalar>
inline constexpr int tile_size_v = 2;
#if defined(__AVX512F__)
template <class Scalar>
inline constexpr int tile_size_v<SerialTeam, Scalar> = 4;  // 16 sums and 8 operands of 32 registers
#else
template <class Scalar>
inline constexpr int tile_size_v<SerialTeam, Scalar> = 3;  // 9 sums and 6 operands of 16 registers
#endif

/// Sums that one lane works on side by side in a matrix-vector product.
template <class Team, class Scalar>
inline constexpr int sums_per_lane_v = tile_size_v<Team, Scalar>;

/// Columns that the blocked routines of linalg finish before they update what is to the right, a
/// multiple of the tile. The update has an entry for every lane where columns alone would leave
/// lanes idle.
template <class Team, class Scalar>
inline constexpr int block_size_v = 16;
template <class Scalar>
inline constexpr int block_size_v<SerialTeam, Scalar> = 1 << 30;  // all columns: nothing is idle

/// f(row, first, step) for the rows of a matrix, of whose columns the caller takes first, first +
/// step, ...: up to kAlong lanes stand side by side along a row, so that what they touch is
/// contiguous, and a row's own values are fetched once.
template <class Team, class F>
TORCHQP_HD void for_each_row(const Team& team, int rows, F f) {
  constexpr int kAlong = 8;
  const int along = team.size() < kAlong ? team.size() : kAlong, side_by_side = team.size() / along;
  if (team.lane() >= along * side_by_side) return;
  TORCHQP_ROLLED
  for (int row = team.lane() / along; row < rows; row += side_by_side)
    f(row, team.lane() % along, along);
}

TORCHQP_END_ISA_NAMESPACE

/// The next multiple of the tile.
TORCHQP_HD int padded(int n, int tile) {
  return (n + tile - 1) / tile * tile;
}

}  // namespace torchqp
