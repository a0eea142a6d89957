// Whole solves and their derivatives on teams of one lane to a block: the serial bits.
#include <gtest/gtest.h>

#include "qp/run_adjoint.hpp"
#include "support/team_case.hpp"

namespace torchqp::qp {
namespace {

template <class T>
class TeamSizes : public ::testing::Test {};
using Elements = ::testing::Types<float, double>;
TYPED_TEST_SUITE(TeamSizes, Elements);

TYPED_TEST(TeamSizes, SolvesAndDerivativesHaveTheSerialBits) {
  using T = TypeParam;
  const HowToSolve how{default_settings<T>(), true};
  std::vector<support::TeamCase> cases;
  for (const support::Family& family :
       {support::Family{"rows", 37, 41, 3, false, true, false, false, false, false, 0, 0},
        support::Family{"bounds", 13, 17, 2, true, true, true, true, false, false, 0.3, 0.1},
        support::Family{"diagonal", 37, 5, 2, false, true, false, false, true, false, 0, 0}}) {
    const auto batch = support::random_batch<T>(family, 1, 17);
    const auto solved = run_solver<T>(support::SerialLaunch{}, batch, how);
    ASSERT_EQ(solved[0][kStatus], 0) << family.name;
    const auto input = adjoint_input<T>(batch.dims, solved, 5);
    const std::string name = family.name;
    cases.push_back(support::team_case(
        name, [=](const auto& launch) { return run_solver<T>(launch, batch, how)[0]; }));
    cases.push_back(support::team_case(name + ", derivative", [=](const auto& launch) {
      return run_adjoint<T>(launch, batch, input)[0];
    }));
  }
  int compared = 0;
  EXPECT_EQ(support::runs_that_differ(cases, compared), std::vector<std::string>{});
  EXPECT_EQ(compared, 6 * 11 * 4 * 2) << "cases, teams, orders, staged or not";
}

}  // namespace
}  // namespace torchqp::qp
