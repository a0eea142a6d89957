// The emulated team itself: it must notice what it exists to notice.
#include "support/fiber_team.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <stdexcept>
#include <string>
#include <vector>

#include "support/races.hpp"
#include "support/scratch.hpp"

namespace torchqp::support {
namespace {

// Barriers that no product routine uses.
constexpr Site kFilled{1001};
constexpr Site kRead{1002};

/// Rotates x by one place `rounds` times through a copy: needs a barrier after the copy is filled
/// (read after write) and one after it is read (write after read).
std::vector<double> rotate(FiberGrid& grid, int n, int rounds) {
  Scratch scratch;
  std::vector<double> start(n);
  for (int i = 0; i < n; ++i) start[i] = i;
  double* x = scratch.copy(start);
  double* copy = scratch.get<double>(n);
  grid.run([&](const auto& team) {
    for (int round = 0; round < rounds; ++round) {
      team.for_each(n, [&](int i) { copy[i] = x[i]; });
      team.template sync<kFilled>();
      team.for_each(n, [&](int i) { x[i] = copy[(i + 1) % n]; });
      team.template sync<kRead>();
    }
  });
  EXPECT_TRUE(scratch.intact());
  return std::vector<double>(x, x + n);
}

std::vector<double> rotated(int n, int rounds) {
  std::vector<double> result(n);
  for (int i = 0; i < n; ++i) result[i] = (i + rounds) % n;
  return result;
}

/// The barrier of this name in rotate().
Barrier find_barrier(Site site) {
  FiberGrid grid(2);
  rotate(grid, 4, 1);
  for (const Barrier& barrier : grid.barriers())
    if (barrier.site == site) return barrier;
  throw std::logic_error("rotate() has no such barrier");
}

std::string what_of(FiberGrid& grid, void (*body)(const FiberTeam&)) {
  try {
    grid.run(body);
  } catch (const Divergence& divergence) {
    return divergence.what();
  }
  return "no divergence";
}

#define SKIP_UNDER_THREAD_SANITIZER() \
  if (kThreadSanitizer) GTEST_SKIP() << "its lanes race on purpose"

constexpr LaneOrder kOrders[] = {LaneOrder::kForward, LaneOrder::kReverse, LaneOrder::kShuffled};

class FiberTeamSizes : public ::testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(AroundWarps, FiberTeamSizes,
                         ::testing::Values(1, 2, 3, 7, 31, 32, 33, 64));

TEST_P(FiberTeamSizes, BarriersMakeTheResultIndependentOfTheOrderOfLanes) {
  for (LaneOrder order : kOrders) {
    FiberGrid grid(GetParam(), order, 5);
    EXPECT_EQ(rotate(grid, 40, 3), rotated(40, 3));
    EXPECT_EQ(rotate(grid, 5, 2), rotated(5, 2)) << "the fibers are used again";
    EXPECT_EQ(grid.visits(kFilled), 5);
    EXPECT_EQ(grid.visits(kRead), 5);
  }
}

TEST(FiberTeam, EveryLaneRunsOnceAndKnowsItsPlace) {
  SKIP_UNDER_THREAD_SANITIZER();
  std::vector<int> order;
  FiberGrid forward(5), reverse(5, LaneOrder::kReverse);
  auto note = [&](const FiberTeam& team) {
    EXPECT_EQ(team.size(), 5);
    order.push_back(team.lane());
  };
  forward.run(note);
  reverse.run(note);
  EXPECT_EQ(order, (std::vector<int>{0, 1, 2, 3, 4, 4, 3, 2, 1, 0}));
}

TEST(FiberTeam, ShufflesDifferBetweenPhasesAndRepeatWithTheSeed) {
  SKIP_UNDER_THREAD_SANITIZER();
  auto lanes_of = [](uint64_t seed) {
    std::vector<int> order;
    FiberGrid grid(16, LaneOrder::kShuffled, seed);
    grid.run([&](const FiberTeam& team) {
      order.push_back(team.lane());
      team.sync<kFilled>();
      order.push_back(team.lane());
    });
    return order;
  };
  const std::vector<int> order = lanes_of(1);
  ASSERT_EQ(order.size(), 32u);
  EXPECT_NE(std::vector<int>(order.begin(), order.begin() + 16),
            std::vector<int>(order.begin() + 16, order.end()));
  EXPECT_EQ(order, lanes_of(1));
  EXPECT_NE(order, lanes_of(2));
}

TEST(FiberTeam, AMissingReadAfterWriteBarrierIsNoticed) {
  SKIP_UNDER_THREAD_SANITIZER();
  const DisabledBarrier mutation(find_barrier(kFilled));
  FiberGrid forward(7);
  const std::vector<double> x = rotate(forward, 40, 1);
  EXPECT_TRUE(std::isnan(x[0])) << "lane 0 read what lane 1 had not written: the poison";
  EXPECT_EQ(forward.visits(kFilled), 0);
}

TEST(FiberTeam, AMissingWriteAfterReadBarrierIsNoticed) {
  SKIP_UNDER_THREAD_SANITIZER();
  const DisabledBarrier mutation(find_barrier(kRead));
  int wrong = 0;
  for (LaneOrder order : kOrders) {
    FiberGrid grid(7, order, 3);
    wrong += rotate(grid, 40, 2) != rotated(40, 2);
  }
  EXPECT_GT(wrong, 0);
}

TEST(FiberTeam, ARaceThatChangesNoValueIsNoticedUnderThreadSanitizer) {
  if (!kThreadSanitizer) GTEST_SKIP() << "only ThreadSanitizer sees it";
  int shared = 1;
  const auto read_then_write = [&](const FiberTeam& team) {
    const int seen = shared;
    team.sync<kRead>();
    team.single([&] { shared = seen; });
  };
  FiberGrid grid(3);
  const int before = races();
  grid.run(read_then_write);
  EXPECT_EQ(races(), before);
  {
    const DisabledBarrier mutation(grid.barriers().at(0));
    const ExpectedRaces expected;
    EXPECT_THROW(grid.run(read_then_write), Race);
    EXPECT_GT(races(), before);
  }
  EXPECT_NO_THROW(grid.run(read_then_write)) << "the grid is usable after a race";
}

TEST(FiberTeam, LanesAtDifferentBarriersAreReportedWithTheirPlaces) {
  FiberGrid grid(6);
  const unsigned line = __LINE__;  // the barriers stand 3 and 5 lines below
  const std::string what = what_of(grid, [](const FiberTeam& team) {
    if (team.lane() < 4)
      team.sync<kFilled>();
    else
      team.sync<kFilled>();
  });
  const std::string file = " wait at fiber_team_test.cpp:";
  EXPECT_EQ(what, "lanes diverge: [0..3]" + file + std::to_string(line + 3) + "; [4..5]" + file +
                      std::to_string(line + 5) + ";");
  EXPECT_EQ(rotate(grid, 20, 1), rotated(20, 1)) << "the grid is usable after a divergence";
}

TEST(FiberTeam, AnEarlyReturnBeforeABarrierIsReported) {
  FiberGrid grid(6, LaneOrder::kReverse);
  const unsigned line = __LINE__ + 3;
  const std::string what = what_of(grid, [](const FiberTeam& team) {
    if (team.lane() == 2) return;
    team.sync<kFilled>();
  });
  const std::string wait = " wait at fiber_team_test.cpp:" + std::to_string(line) + ";";
  EXPECT_EQ(what, "lanes diverge: [0..1]" + wait + " [2..2] returned; [3..5]" + wait);
}

TEST(FiberTeam, AMissingBarrierOnOneLaneOnlyIsADivergence) {
  FiberGrid grid(3);
  EXPECT_THROW(grid.run([](const FiberTeam& team) {
    if (team.lane() != 1) team.sync<kFilled>();
    team.sync<kRead>();
  }),
               Divergence);
}

TEST(FiberTeam, AnExceptionInALaneReachesTheCaller) {
  FiberGrid grid(4);
  EXPECT_THROW(grid.run([](const FiberTeam& team) {
    if (team.lane() == 3) throw std::length_error("lane 3");
  }),
               std::length_error);
  EXPECT_THROW(grid.run([](const FiberTeam& team) {
    if (team.lane() == 1) throw std::length_error("lane 1");
    team.sync<kFilled>();
  }),
               std::length_error);
  EXPECT_EQ(rotate(grid, 20, 1), rotated(20, 1));
}

TEST(FiberTeam, SingleRunsOnOneLane) {
  FiberGrid grid(9, LaneOrder::kShuffled, 1);
  int runs = 0;
  grid.run([&](const FiberTeam& team) { team.single([&] { ++runs; }); });
  EXPECT_EQ(runs, 1);
}

TEST(FiberTeam, NeedsALane) {
  EXPECT_THROW(FiberGrid(0), std::invalid_argument);
}

TEST(FiberTeamDeathTest, AStackOverflowHitsTheGuardPage) {
  EXPECT_DEATH(
      {
        FiberGrid grid(2);
        grid.run([](const FiberTeam& team) {
          struct Recurse {
            static int down(volatile char* above, int depth) {
              volatile char frame[4096];
              frame[0] = above[0];
              return depth == 0 ? frame[0] : down(frame, depth - 1) + frame[0];
            }
          };
          volatile char top[1] = {static_cast<char>(team.lane())};
          Recurse::down(top, 1000);
        });
      },
      "");
}

#if !defined(TORCHQP_ADDRESS_SANITIZER)
TEST(Scratch, NoticesAWriteOutsideABlock) {
  Scratch scratch;
  double* block = scratch.get<double>(3);
  EXPECT_TRUE(std::isnan(block[0]) && std::isnan(block[2]));
  for (int i = 0; i < 3; ++i) block[i] = 1;
  EXPECT_TRUE(scratch.intact());
  block[3] = 1;
  EXPECT_FALSE(scratch.intact());
}
#else
TEST(ScratchDeathTest, AReadOutsideABlockIsFatal) {
  Scratch scratch;
  volatile double* block = scratch.get<double>(3);
  EXPECT_DEATH((void)block[3], "use-after-poison");
  EXPECT_DEATH((void)block[-1], "use-after-poison");
}
#endif

TEST(Scratch, PoisonIsNaNInBothPrecisions) {
  Scratch scratch;
  EXPECT_TRUE(std::isnan(*scratch.get<float>(1)));
  EXPECT_TRUE(std::isnan(*scratch.get<double>(1)));
}

}  // namespace
}  // namespace torchqp::support
