#pragma once
// Computations over a team whose bits must not depend on it.

#include <functional>
#include <string>
#include <vector>

#include "support/launch.hpp"
#include "support/packed.hpp"

namespace torchqp::support {

/// One computation over a team: its outputs, one after the other.
struct TeamCase {
  std::string name;
  std::function<std::vector<double>()> serial;
  std::function<std::vector<double>(FiberGrid&)> on_grid;
};

/// compute(launch) -> std::vector<double>, for SerialLaunch and FiberLaunch.
template <class Compute>
TeamCase team_case(std::string name, Compute compute) {
  return {std::move(name), [compute] { return compute(SerialLaunch{}); },
          [compute](FiberGrid& grid) { return compute(FiberLaunch{grid}); }};
}

/// Sizes of teams around every limit: one lane, odd numbers, the parts of a sum, a warp, blocks.
inline constexpr int kSizesOfTeams[] = {1, 2, 3, 7, 8, 31, 32, 33, 64, 128, 256};

/// Runs the cases on teams of kSizesOfTeams lanes in every order, staged and not. Returns the runs
/// whose bits are not the serial ones, and adds to `compared` how many runs there were.
inline std::vector<std::string> runs_that_differ(const std::vector<TeamCase>& cases,
                                                 int& compared) {
  std::vector<std::vector<double>> expected;
  for (const TeamCase& test : cases) expected.push_back(test.serial());
  std::vector<std::string> different;
  for_each_fiber_launch(kSizesOfTeams, [&](const FiberLaunch& launch, const std::string& on) {
    for (size_t c = 0; c < cases.size(); ++c, ++compared)
      if (!same_bits(cases[c].on_grid(launch.grid), expected[c]))
        different.push_back(cases[c].name + ", " + on);
  });
  return different;
}

}  // namespace torchqp::support
