// Every barrier between the caller's arrays and the solver is needed, and needed by a test: see
// support/mutation.hpp.
#include <gtest/gtest.h>

#include <algorithm>
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

/// The linearised systems of a batch, which one team solves; the first `failed` ones as if their
/// problems had not been solved.
support::TeamCase kkt_case(const std::string& name, const QpBatch<double>& batch, bool with_factor,
                           int failed = 0) {
  const auto systems = std::make_shared<cpu::Systems<double>>(batch, 7);
  std::fill_n(systems->status.begin(), failed, static_cast<int32_t>(Status::kMaxIterations));
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
  std::vector<support::TeamCase> cases;
  for (const support::Family& family : support::families()) {
    const std::string name = family.name;
    const auto batch = support::random_batch<double>(family, 3, 21);
    cases.push_back(solve_case(name, batch, false));
    auto alike = batch.pick({0, 0, 0});
    for (size_t i = 0; i < alike.q.size(); ++i) alike.q[i] += batch.q[i];
    cases.push_back(solve_case(name + ", shared", alike, true));
    for (bool with_factor : {false, true}) cases.push_back(kkt_case(name, batch, with_factor));
    cases.push_back(kkt_case(name + ", failed", batch, false, 2));
  }
  for (bool bounds : {false, true})
    cases.push_back(solve_case("troubled", support::troubled_batch<double>(bounds).batch, false));
  const auto between_members = [](const support::Barrier& barrier) {
    return barrier.place().rfind("member_", 0) == 0;
  };
  const support::BarrierReport report = support::switch_off_barriers(cases, between_members);
  std::cout << report.table();
  EXPECT_EQ(report.unnoticed_places(), std::vector<std::string>{});
  for (const std::string& place : report.unreached_places("cuda"))
    ADD_FAILURE() << "a new barrier needs a case here: " << place;
}

}  // namespace
}  // namespace torchqp::cuda
