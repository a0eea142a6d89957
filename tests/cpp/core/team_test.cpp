// The Team vocabulary: every entry goes to one lane, and what lanes exchange does not depend on how
// many they are.
#include "core/team.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "support/launch.hpp"
#include "support/mutation.hpp"
#include "support/packed.hpp"

namespace torchqp::support {
namespace {

// A barrier that no product routine uses.
constexpr Site kExchange{1001};
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

/// f(launch, description) for the serial team and emulated teams of 1 to 33 lanes.
template <class F>
void for_each_team(F f) {
  f(SerialLaunch{}, "serial");
  for (int lanes : {1, 2, 3, 7, 8, 9, 32, 33})
    for (LaneOrder order : {LaneOrder::kForward, LaneOrder::kShuffled}) {
      FiberGrid grid(lanes, order, 4);
      f(FiberLaunch{grid}, std::to_string(lanes) + " lanes");
    }
}

TEST(Team, EveryPairOfTilesGoesToOneLane) {
  for_each_team([](const auto& launch, const std::string& description) {
    for (int rows : {0, 1, 2, 7, 12})
      for (int cols : {0, 1, 5, 12})
        for (int step : {1, 3})
          for (bool lower : {false, true}) {
            if (lower && rows != cols) continue;
            std::vector<int> visits(15 * 15), expected(15 * 15);
            for (int i = 0; i < rows; i += step)
              for (int j = 0; j < cols && (!lower || j <= i); j += step) expected[i * 15 + j] = 1;
            launch([&](const auto& team) {
              team.for_each_tile_pair(rows, cols, step, lower,
                                      [&](int i, int j) { ++visits[i * 15 + j]; });
            });
            EXPECT_EQ(visits, expected)
                << description << ", " << rows << " x " << cols << " by " << step << " " << lower;
          }
  });
}

TEST(Team, PairsAreSharedOutEvenly) {
  for (int lanes : {3, 7, 32}) {
    FiberGrid grid(lanes);
    for (bool lower : {false, true}) {
      std::vector<int> share(lanes);
      grid.run([&](const FiberTeam& team) {
        team.for_each_tile_pair(12, 12, 1, lower, [&](int, int) { ++share[team.lane()]; });
      });
      const auto [least, most] = std::minmax_element(share.begin(), share.end());
      EXPECT_LE(*most - *least, 1) << lanes << " lanes";
    }
  }
}

TEST(Team, EveryEntryOfARowGoesToOneLane) {
  for_each_team([](const auto& launch, const std::string& description) {
    for (int rows : {0, 1, 6})
      for (int cols : {0, 1, 7, 20}) {
        std::vector<int> visits(6 * 20), expected(6 * 20);
        for (int i = 0; i < rows; ++i) std::fill_n(expected.begin() + i * 20, cols, 1);
        launch([&](const auto& team) {
          for_each_row(team, rows, [&](int i, int first, int step) {
            for (int j = first; j < cols; j += step) ++visits[i * 20 + j];
          });
        });
        EXPECT_EQ(visits, expected) << description << ", " << rows << " x " << cols;
      }
  });
}

/// The largest and the number of positive ones of two series that the lanes share, `rounds` times
/// with other numbers; for every lane one after the other.
template <class Launch>
std::vector<double> exchange(const Launch& launch, int count, int rounds) {
  std::vector<double> results(4 * rounds);
  launch([&](const auto& team) {
    for (int round = 0; round < rounds; ++round) {
      const auto value = [&](int i) { return std::sin(1.0 + i + 10 * round); };
      double norms[2] = {0, 0}, counts[2] = {0, 0};
      team.for_each(count, [&](int i) {
        norms[0] = max_norm(norms[0], value(i)), norms[1] = max_norm(norms[1], value(2 * i));
        counts[0] += value(i) > 0, counts[1] += value(2 * i) > 0;
      });
      team.template max_all<kExchange>(norms);
      team.template add_all<kExchange>(counts);
      if (team.lane() != team.size() - 1) continue;
      std::copy(norms, norms + 2, results.begin() + 4 * round);
      std::copy(counts, counts + 2, results.begin() + 4 * round + 2);
    }
  });
  return results;
}

TEST(Team, ExchangedNormsAndCountsAreThoseOfOneLane) {
  for_each_team([](const auto& launch, const std::string& description) {
    for (int count : {0, 1, 5, 50})
      EXPECT_TRUE(same_bits(exchange(launch, count, 3), exchange(SerialLaunch{}, count, 3)))
          << description << ", " << count;
  });
}

TEST(Team, ANaNOfAnyLaneIsTheLargestOfAll) {
  FiberGrid grid(7);
  for (int lane : {0, 3, 6})
    grid.run([&](const FiberTeam& team) {
      double values[2] = {team.lane() == lane ? kNaN : 1.0, 1.0 + team.lane()};
      team.max_all<kExchange>(values);
      EXPECT_TRUE(std::isnan(values[0])) << lane;
      EXPECT_EQ(values[1], 7.0);
    });
}

/// Sums of rounded numbers, of which the order shows in the last bits.
template <class Scalar, class Launch>
std::vector<double> rounded_sums(const Launch& launch, int count) {
  std::vector<double> results;
  launch([&](const auto& team) {
    Scalar sum[2];
    team.template sums<kExchange>(count, sum, [&](int i, Scalar(&partial)[2]) {
      const Scalar x = broadcast<Scalar>(std::sin(1.0 + i)), y = broadcast<Scalar>(1.0 / (3 + i));
      partial[0] = fused(x, y, partial[0]);
      partial[1] = partial[1] + x;
    });
    if (team.lane() == 0)
      for (const Scalar& s : sum)
        for (int w = 0; w < width_v<Scalar>; ++w) results.push_back(get(s, w));
  });
  return results;
}

TEST(Team, SumsHaveOneOrder) {
  for_each_team([](const auto& launch, const std::string& description) {
    for (int count : {0, 1, 7, 8, 9, 100}) {
      const auto serial = rounded_sums<double>(SerialLaunch{}, count);
      EXPECT_TRUE(same_bits(rounded_sums<double>(launch, count), serial)) << description;
      const auto pack = rounded_sums<Pack<double, 4>>(launch, count);
      for (int w = 0; w < 4; ++w) {
        EXPECT_TRUE(same_bits(pack[w], serial[0])) << description;
        EXPECT_TRUE(same_bits(pack[4 + w], serial[1])) << description;
      }
    }
  });
}

TEST(Team, TheOrderOfASumIsTheDocumentedOne) {
  for (unsigned seed = 0; seed < 20; ++seed) {
    const std::vector<double> x = random_problems<double>(1, 20, seed)[0];
    double sum[1];
    SerialTeam{}.sums<kExchange>(20, sum, [&](int i, double(&partial)[1]) { partial[0] += x[i]; });
    const auto part = [&](int i) { return i < 4 ? x[i] + x[i + 8] + x[i + 16] : x[i] + x[i + 8]; };
    EXPECT_EQ(sum[0], ((part(0) + part(4)) + (part(2) + part(6))) +
                          ((part(1) + part(5)) + (part(3) + part(7))));
  }
}

TEST(Team, EveryExchangeNeedsItsBarrier) {
  if (kThreadSanitizer) GTEST_SKIP() << "without a barrier the lanes race on purpose";
  const BarrierReport report = switch_off_barriers({
      team_case("exchange", [](const auto& launch) { return exchange(launch, 50, 3); }),
      team_case("sums", [](const auto& launch) { return rounded_sums<double>(launch, 50); }),
  });
  EXPECT_EQ(report.barriers.size(), 3u);
  EXPECT_EQ(report.unnoticed_places(), std::vector<std::string>{});
}

}  // namespace
}  // namespace torchqp::support
