#pragma once
// Which rows hold, as a list: problems of a pack hold different rows, and many fewer than all.
// Working on the list instead of under a mask makes a factor of half the rows cost an eighth.

#include "core/pack.hpp"
#include "core/team.hpp"
#include "qp/workspace.hpp"

namespace torchqp::qp {
TORCHQP_BEGIN_ISA_NAMESPACE

/// The rows that hold, ascending, for each problem of a pack by itself. Rows are kept as numbers of
/// the Scalar type, exact up to 2^24.
template <class Scalar>
struct ActiveRows {
  Scalar* row;    ///< [capacity + 1] row[r] is the r-th row that holds; 0 from count on
  Scalar* place;  ///< [capacity] where a row that holds stands in the list
  Scalar* count;  ///< [1]

  TORCHQP_HD ActiveRows(int capacity, Arena<Scalar>& arena)
      : row(arena.take(capacity + 1)), place(arena.take(capacity)), count(arena.take(1)) {}

  /// Lists the rows with active[i] != 0 among the first `rows` of `capacity`.
  ///
  /// Team: every lane calls and sees its own entries of active on entry; ends with a sync.
  template <class Team>
  TORCHQP_HD_CALL void list(const Team& team, const Scalar* active, int rows, int capacity) const {
    const Scalar zero = broadcast<Scalar>(0), one = broadcast<Scalar>(1);
    // A lane lists a chunk of the rows, which it has first counted up to there: no lane has to wait
    // for what another one found.
    constexpr int kLeast = 8;
    const int share = (rows + team.size() - 1) / team.size();
    const int chunk = share > kLeast ? share : kLeast, begin = team.lane() * chunk;
    const int end = begin + chunk < rows ? begin + chunk : rows;
    team.for_each(capacity + 1, [&](int r) { row[r] = zero; });
    team.template sync<Site::kActiveRows>();
    Scalar next = zero;
    TORCHQP_ROLLED
    for (int i = 0; i < begin && begin < rows; ++i)
      next = select(active[i] != zero, next + one, next);
    TORCHQP_ROLLED
    for (int i = begin; i < end; ++i) {
      const auto holds = active[i] != zero;
      place[i] = next;
      for_each_lane(holds, [&](int w) {
        set(row[static_cast<int>(get(next, w))], w, static_cast<Element<Scalar>>(i));
      });
      next = select(holds, next + one, next);
    }
    team.for_each(capacity - rows, [&](int i) { place[rows + i] = zero; });
    if (end == rows && (begin < rows || team.lane() == 0)) count[0] = next;
    team.template sync<Site::kActiveRows>();
  }

  /// Length of the longest list of the pack, padded to the tile.
  template <class Team>
  TORCHQP_HD int longest() const {
    Element<Scalar> result = 0;
    for (int w = 0; w < width_v<Scalar>; ++w) {
      const Element<Scalar> length = get(count[0], w);
      if (length > result) result = length;
    }
    return padded(static_cast<int>(result), tile_size_v<Team, Scalar>);
  }

  /// Problems whose list is longer than r.
  TORCHQP_HD MaskOf<Scalar> has(int r) const { return broadcast<Scalar>(r) < count[0]; }
};

TORCHQP_END_ISA_NAMESPACE
}  // namespace torchqp::qp
