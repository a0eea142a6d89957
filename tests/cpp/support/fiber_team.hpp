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

namespace torchqp::support {

class FiberGrid;

#if defined(__SANITIZE_THREAD__)
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
  void single(F&& f) const {
    if (lane_ == 0) f();
  }

 private:
  void wait(const Barrier& barrier) const;

  FiberGrid* grid_;
  int lane_;
  int size_;
};

/// Owns the fibers of a team and runs bodies on them. Not thread-safe: one grid per OS thread.
class FiberGrid {
 public:
  explicit FiberGrid(int lanes, LaneOrder order = LaneOrder::kForward, uint64_t seed = 0);
  ~FiberGrid();
  FiberGrid(const FiberGrid&) = delete;
  FiberGrid& operator=(const FiberGrid&) = delete;

  /// Calls body(team) on every lane and returns when all have returned.
  ///
  /// Throws Divergence when lanes wait at different barriers, or some wait while others have
  /// returned; the waiting lanes are then abandoned where they stand (no destructors run). Rethrows
  /// the first exception that leaves a lane.
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
