// The bodies around the libraries' calls: the same bits on teams of every size, and every barrier
// needed, and needed by a test (see support/mutation.hpp).
#include <gtest/gtest.h>

#include <iostream>

#include "cuda/setup_emulator.hpp"
#include "support/mutation.hpp"

namespace torchqp::cuda {
namespace {

using support::FiberGrid;
using support::QpSolutions;

/// A batch that is solved with libraries; what stands for the serial team is a team of one lane.
support::TeamCase setup_case(const std::string& name, const support::QpBatch<double>& batch) {
  const auto run = [=](FiberGrid& grid) {
    QpSolutions<double> solutions(batch.dims, batch.size, true);
    emulate_setup_batch<double>(batch.view(), default_settings<double>(), solutions.view(), kDevice,
                                grid);
    EXPECT_TRUE(solutions.intact());
    std::vector<double> all;
    for (int64_t i = 0; i < batch.size; ++i)
      for (double value : solutions.member(i)) all.push_back(value);
    return all;
  };
  return {name,
          [=] {
            FiberGrid one(1, support::LaneOrder::kForward, 0);
            return run(one);
          },
          run};
}

std::vector<support::TeamCase> all_cases() {
  std::vector<support::TeamCase> cases;
  for (const support::Family& family : dual_families())
    cases.push_back(setup_case(family.name, support::random_batch<double>(family, 2, 41)));
  cases.push_back(setup_case("troubled", support::troubled_batch<double>(false).batch));
  return cases;
}

TEST(SetupTeams, EverySizeAndOrderHasTheSameBits) {
  int compared = 0;
  EXPECT_EQ(support::runs_that_differ(all_cases(), compared), std::vector<std::string>{});
  EXPECT_GE(compared, 7 * 11 * 3);
}

TEST(SetupTeams, EveryBarrierIsMissedWhenItIsOff) {
  const support::BarrierReport report =
      support::switch_off_barriers(all_cases(), [](const support::Barrier& barrier) {
        const std::string place = barrier.place();
        return place.rfind("member_setup.hpp", 0) == 0 || place.rfind("library_setup.hpp", 0) == 0;
      });
  std::cout << report.table();
  EXPECT_EQ(report.barriers.size(), 2u) << "a new barrier needs a case here";
  EXPECT_EQ(report.unnoticed_places(), std::vector<std::string>{});
}

}  // namespace
}  // namespace torchqp::cuda
