// The linearised solve on every team; its values are judged in cpu/kkt_batch_test.cpp.
#include <gtest/gtest.h>

#include <string>

#include "qp/run_adjoint.hpp"

namespace torchqp::qp {
namespace {

template <class Scalar>
class AdjointOnTeams : public ::testing::Test {};
using Scalars = ::testing::Types<float, double, Pack<double, 4>>;
TYPED_TEST_SUITE(AdjointOnTeams, Scalars);

/// The input of problem w alone.
template <class T>
AdjointInput<T> alone(const AdjointInput<T>& input, int w) {
  return {{input.g_z[w]}, {input.g_nu[w]}, {input.g_lam[w]}, {input.active[w]}, {input.live[w]}};
}

template <class Scalar>
void expect_one_adjoint(const support::QpBatch<Element<Scalar>>& batch, const std::string& label) {
  using T = Element<Scalar>;
  const HowToSolve how{default_settings<T>()};
  const auto solved = run_solver<Scalar>(support::SerialLaunch{}, batch, how);
  const AdjointInput<T> input = adjoint_input<T>(batch.dims, solved, 61);
  const Problems<double> serial = run_adjoint<Scalar>(support::SerialLaunch{}, batch, input);
  support::for_each_fiber_launch([&](const auto& launch, const std::string& description) {
    const Problems<double> team = run_adjoint<Scalar>(launch, batch, input);
    for (int w = 0; w < width_v<Scalar>; ++w)
      EXPECT_TRUE(support::same_bits(team[w], serial[w]))
          << label << ", problem " << w << ", " << description;
  });
  for (int w = 0; w < width_v<Scalar>; ++w) {
    const auto scalar = run_adjoint<T>(support::SerialLaunch{}, batch.pick({w}), alone(input, w));
    EXPECT_TRUE(support::same_bits(scalar[0], serial[w])) << label << ", problem " << w << " alone";
    for (double x : serial[w]) {
      EXPECT_TRUE(std::isfinite(x)) << label;
      if (!input.live[w]) {
        EXPECT_EQ(x, 0) << label;
      }
    }
  }
}

TYPED_TEST(AdjointOnTeams, EveryFamilyHasTheSerialBits) {
  using T = Element<TypeParam>;
  for (const support::Family& family : support::families())
    expect_one_adjoint<TypeParam>(support::random_batch<T>(family, width_v<TypeParam>, 62),
                                  family.name);
}

TYPED_TEST(AdjointOnTeams, FailedProblemsAreZeroAndStayAlone) {
  using T = Element<TypeParam>;
  for (bool bounds : {false, true})
    for (std::vector<int64_t> pack :
         {std::vector<int64_t>{0, 1, 0, 2}, {4, 0, 3, 5}, {6, 7, 1, 0}}) {
      pack.resize(width_v<TypeParam>);
      const auto batch = support::troubled_batch<T>(bounds).batch.pick(pack);
      expect_one_adjoint<TypeParam>(batch, bounds ? "troubled, bounds" : "troubled, rows");
    }
}

}  // namespace
}  // namespace torchqp::qp
