#pragma once
// A team of N emulated lanes on one OS thread: runs the code of a GPU block where there is no GPU.
//
// Each lane is a fiber with its own stack. A phase runs every lane, one after the other, up to its
// next barrier; the order of the lanes within a phase is permuted, so that a result that depends on
// it (a missing barrier) comes out differently. All lanes must reach the same barrier: `Divergence`
// says who is where when they do not.

#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include "core/team.hpp"
#include "linalg/staged.hpp"
#include "support/sanitizers.hpp"

namespace torchqp::support {

class FiberGrid;

#if defined(TORCHQP_THREAD_SANITIZER)
inline constexpr bool kThreadSanitizer = true;
#else
inline constexpr bool kThreadSanitizer = false;
#endif

/// The order in which the lanes run within a phase.
enum class LaneOrder {
  kForward,   ///< 0, 1, ..., N - 1 in every phase
  kReverse,   ///< N - 1, ..., 0 in every phase
  kShuffled,  ///< a new permutation for every phase, reproducible from the seed
};

/// The lanes did not all reach the same barrier: on a GPU this hangs or is undefined.
struct Divergence : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// Two lanes used the same memory, one of them to write, with no barrier between: what they leave
/// there depends on who comes first. Only ThreadSanitizer sees it.
struct Race : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// One barrier in the source: its name and the line of the call.
struct Barrier {
  Site site;
  const char* file;
  unsigned line;

  bool operator==(const Barrier& other) const;
  /// "triangular.hpp:42".
  std::string place() const;
};

/// One lane's view of its team; the Team vocabulary of core/team.hpp.
class FiberTeam {
 public:
  FiberTeam(FiberGrid* grid, int lane, int size) : grid_(grid), lane_(lane), size_(size) {}

  int lane() const { return lane_; }
  int size() const { return size_; }

  template <Site kSite>
  void sync(const char* file = __builtin_FILE(), unsigned line = __builtin_LINE()) const {
    wait({kSite, file, line});
  }

  template <class F>
  void for_each(int n, F&& f) const {
    for (int i = lane_; i < n; i += size_) f(i);
  }

  template <class F>
  void for_each_tile(int begin, int end, int step, F&& f) const {
    for (int i = begin + lane_ * step; i < end; i += size_ * step) f(i);
  }

  template <class F>
  void for_each_tile_pair(int rows, int cols, int step, bool lower, F&& f) const {
    for_each_pair_of_lane(lane_, size_, rows, cols, step, lower, f);
  }

  template <class F>
  void single(F&& f) const {
    if (lane_ == 0) f();
  }

  /// Memory that all lanes see, where the grid stages.
  template <class Scalar>
  Scalar* stage() const {
    return static_cast<Scalar*>(stage_memory(linalg::staged::kScalars * sizeof(Scalar)));
  }

  template <Site kSite, int kCount, class Scalar>
  void max_all(Scalar (&values)[kCount], const char* file = __builtin_FILE(),
               unsigned line = __builtin_LINE()) const {
    combine({kSite, file, line}, values, [](Scalar a, Scalar b) { return max_norm(a, b); });
  }

  template <Site kSite, int kCount, class Scalar>
  void add_all(Scalar (&values)[kCount], const char* file = __builtin_FILE(),
               unsigned line = __builtin_LINE()) const {
    combine({kSite, file, line}, values, [](Scalar a, Scalar b) { return a + b; });
  }

  template <Site kSite, int kCount, class Scalar, class Add>
  void sums(int count, Scalar (&result)[kCount], Add add, const char* file = __builtin_FILE(),
            unsigned line = __builtin_LINE()) const {
    for (int part = lane_; part < kSumParts; part += size_)
      sum_part(part, count, *slot<Scalar[kCount]>(part), add);
    wait({kSite, file, line});
    for (int c = 0; c < kCount; ++c) {
      Scalar parts[kSumParts];
      for (int part = 0; part < kSumParts; ++part) parts[part] = (*slot<Scalar[kCount]>(part))[c];
      result[c] = add_parts(parts);
    }
    end_exchange();
  }

 private:
  friend class FiberGrid;
  static constexpr int kSlotBytes = 1024;

  void wait(const Barrier& barrier) const;
  void* stage_memory(size_t bytes) const;

  /// What the lanes exchange stands in slots of the grid, of which there are two sets: one barrier is
  /// enough, because who is in the next exchange writes to the other set. Slots start as NaN.
  void* slot_at(int index) const;
  /// Makes this lane's slots of the other set, which all have read, NaN again and turns to it.
  void end_exchange() const;

  template <class Values>
  Values* slot(int index) const {
    static_assert(sizeof(Values) <= kSlotBytes);
    return static_cast<Values*>(slot_at(index));
  }

  template <int kCount, class Scalar, class Combine>
  void combine(const Barrier& barrier, Scalar (&values)[kCount], Combine both_of) const {
    for (int c = 0; c < kCount; ++c) (*slot<Scalar[kCount]>(lane_))[c] = values[c];
    wait(barrier);
    for (int lane = 0; lane < size_; ++lane) {
      const Scalar(&other)[kCount] = *slot<Scalar[kCount]>(lane);
      for (int c = 0; c < kCount; ++c)
        values[c] = lane == 0 ? other[c] : both_of(values[c], other[c]);
    }
    end_exchange();
  }

  FiberGrid* grid_;
  int lane_;
  int size_;
};

/// Owns the fibers of a team and runs bodies on them. Not thread-safe: one grid per OS thread.
class FiberGrid {
 public:
  /// `staged`: whether the team has memory to stage operands in, as a block has and a warp has not.
  FiberGrid(int lanes, LaneOrder order, uint64_t seed, bool staged);
  explicit FiberGrid(int lanes, LaneOrder order = LaneOrder::kForward, uint64_t seed = 0)
      : FiberGrid(lanes, order, seed, lanes > 32) {}
  ~FiberGrid();
  FiberGrid(const FiberGrid&) = delete;
  FiberGrid& operator=(const FiberGrid&) = delete;

  /// Calls body(team) on every lane and returns when all have returned.
  ///
  /// Throws Divergence when lanes wait at different barriers, or some wait while others have
  /// returned; the waiting lanes are then abandoned where they stand (no destructors run). Throws
  /// Race when lanes race. Rethrows the first exception that leaves a lane.
  template <class Body>
  void run(Body&& body) {
    using Plain = std::remove_reference_t<Body>;
    run_lanes([](void* context, const FiberTeam& team) { (*static_cast<Plain*>(context))(team); },
              const_cast<std::remove_const_t<Plain>*>(&body));
  }

  int lanes() const { return lanes_; }

  /// Phases that ended at a barrier of this name, over all runs so far; none while it is off.
  int64_t visits(Site site) const;

  /// All barriers at which a phase ended so far, each once, in the order of first use.
  std::vector<Barrier> barriers() const;

 private:
  friend class FiberTeam;
  struct Impl;  // all that the scheduler touches stays in fiber_team.cpp, which is not instrumented

  void run_lanes(void (*body)(void*, const FiberTeam&), void* context);

  int lanes_;
  std::unique_ptr<Impl> impl_;
};

/// Switches one barrier off in every grid while it lives: the mutation that a test must notice.
/// Several may live at once, as long as they are destroyed in reverse order.
class DisabledBarrier {
 public:
  explicit DisabledBarrier(const Barrier& barrier);
  ~DisabledBarrier();
  DisabledBarrier(const DisabledBarrier&) = delete;
  DisabledBarrier& operator=(const DisabledBarrier&) = delete;
};

}  // namespace torchqp::support

namespace torchqp {
TORCHQP_BEGIN_ISA_NAMESPACE

/// Two tiles: small problems have several blocks.
template <class Scalar>
inline constexpr int block_size_v<support::FiberTeam, Scalar> = 4;

TORCHQP_END_ISA_NAMESPACE
}  // namespace torchqp
