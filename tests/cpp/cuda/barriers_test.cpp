// Every barrier between the caller's arrays and the solver is needed, and needed by a test: see
// support/mutation.hpp.
#include <gtest/gtest.h>

#include <iostream>
#include <memory>

#include "cpu/systems.hpp"
#include "cuda/emulator.hpp"
#include "support/mutation.hpp"

namespace torchqp::cuda {
namespace {

using support::FiberGrid;
using support::QpBatch;
using support::QpSolutions;

constexpr Schedule kOneTeam{support::LaneOrder::kForward, 0, true};

/// A batch that one team solves, member after member. `shared`: all have the first one's matrices.
support::TeamCase solve_case(const std::string& name, const QpBatch<double>& batch, bool shared) {
  const auto compute = [=](auto solve) {
    const ProblemBatch<double> problem = shared ? repeat_matrices(batch, 1) : batch.view();
    QpSolutions<double> solutions(problem.dims, problem.size, true);
    solve(problem, solutions);
    EXPECT_TRUE(solutions.intact());
    std::vector<double> all;
    for (int64_t i = 0; i < problem.size; ++i)
      for (double value : solutions.member(i)) all.push_back(value);
    return all;
  };
  const Settings settings = default_settings<double>();
  return {name,
          [=] {
            return compute([&](const auto& problem, auto& solutions) {
              cpu::solve_members(problem, settings, solutions, 0, problem.size);
            });
          },
          [=](FiberGrid& grid) {
            return compute([&](const auto& problem, auto& solutions) {
              const LaunchPlan plan = plan_solve<double>(problem.dims, problem.size, kDevice);
              emulate_solve<double>(problem, settings, solutions.view(), kOneTeam.of(plan), false,
                                    grid);
            });
          }};
}

/// The linearised systems of a batch, which one team solves.
support::TeamCase kkt_case(const std::string& name, const QpBatch<double>& batch,
                           bool with_factor) {
  const auto systems = std::make_shared<cpu::Systems<double>>(batch, 7);
  const auto answers = [=] {
    std::vector<double> all;
    for (int64_t i = 0; i < systems->batch.size; ++i)
      for (double value : systems->answer(i)) all.push_back(value);
    return all;
  };
  return {name + (with_factor ? ", derivative" : ", derivative without a factor"),
          [=] {
            systems->solve(with_factor);
            return answers();
          },
          [=](FiberGrid& grid) {
            const KktBatch<double> system = systems->view(with_factor);
            const LaunchPlan plan = plan_kkt<double>(system.dims, system.size, kDevice);
            emulate_kkt(system, kOneTeam.of(plan), grid);
            return answers();
          }};
}

TEST(Barriers, EveryOneBetweenMembersIsMissedWhenItIsOff) {
  if (support::kThreadSanitizer) GTEST_SKIP() << "without a barrier the lanes race on purpose";
  std::vector<support::TeamCase> cases;
  for (const support::Family& family : support::families()) {
    const std::string name = family.name;
    const auto batch = support::random_batch<double>(family, 3, 21);
    cases.push_back(solve_case(name, batch, false));
    auto alike = batch.pick({0, 0, 0});
    for (size_t i = 0; i < alike.q.size(); ++i) alike.q[i] += batch.q[i];
    cases.push_back(solve_case(name + ", shared", alike, true));
    for (bool with_factor : {false, true}) cases.push_back(kkt_case(name, batch, with_factor));
  }
  for (bool bounds : {false, true})
    cases.push_back(solve_case("troubled", support::troubled_batch<double>(bounds).batch, false));
  const auto between_members = [](const support::Barrier& barrier) {
    return barrier.place().rfind("member_", 0) == 0;
  };
  const support::BarrierReport report = support::switch_off_barriers(cases, between_members);
  std::cout << report.table();
  EXPECT_EQ(report.barriers.size(), 7u) << "a new barrier needs a case here";
  // Not missed alone are those of a linearised system. After the answers are stored, the next
  // member's data overwrite nothing that another lane still reads. And of the two before the solve
  // one is enough, because listing the rows has a barrier of its own: without the one, the other is
  // missed.
  int alone = 0;
  for (const support::Barrier& barrier : report.unnoticed()) {
    EXPECT_EQ(barrier.place().rfind("member_kkt.hpp:", 0), 0u) << barrier.place();
    if (barrier.site == Site::kStore) continue;
    const support::DisabledBarrier off(barrier);
    const auto others = support::switch_off_barriers(cases, [&](const support::Barrier& other) {
      return other.site == Site::kLoad && other.place().rfind("member_kkt.hpp:", 0) == 0;
    });
    EXPECT_EQ(others.barriers.size(), 1u);
    EXPECT_EQ(others.unnoticed_places(), std::vector<std::string>{});
    ++alone;
  }
  EXPECT_EQ(report.unnoticed().size(), 3u);
  EXPECT_EQ(alone, 2);
}

}  // namespace
}  // namespace torchqp::cuda
