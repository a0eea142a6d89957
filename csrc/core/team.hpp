#pragma once
// The Team vocabulary: who cooperates on one problem.
//
// A numerical routine is a function template over Team and is called by every lane with equal
// arguments. Work is shared out by for_each; whatever another lane wrote may be read only after a
// sync. Scalars that steer the control flow (step lengths, norms, masks) are computed by every lane
// for itself from shared vectors, so that a branch is the same on all lanes and the bits do not
// depend on the size of the team.
//
// A team offers: lane(), size(), sync<Site>(), for_each(count, f), for_each_tile(begin, end, step,
// f), single(f).

#include "core/config.hpp"

namespace torchqp {

/// Barriers have names, so that a test can switch one off and see who notices.
enum class Site : int {
  kCholeskyDiagonal,
  kCholeskyColumn,
  kLowerTile,
  kLowerEnd,
  kUpperTile,
  kUpperEnd,
  kRowsEnd,
  kMultiplyEnd,
  kMultiplyTransposedEnd,
  kGramEnd,
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
  kPolishKeep,
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
  TORCHQP_HD void single(F f) const {
    f();
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

TORCHQP_END_ISA_NAMESPACE

/// The next multiple of the tile.
TORCHQP_HD int padded(int n, int tile) {
  return (n + tile - 1) / tile * tile;
}

}  // namespace torchqp
