// Every routine on teams of one lane to a block: the serial bits.
#include <gtest/gtest.h>

#include <cmath>

#include "linalg/every_routine.hpp"

namespace torchqp::linalg {
namespace {

template <class T>
class TeamSizes : public ::testing::Test {};
using Elements = ::testing::Types<float, double>;
TYPED_TEST_SUITE(TeamSizes, Elements);

TYPED_TEST(TeamSizes, EveryRoutineHasTheSerialBits) {
  // A block of 256 lanes computes 64 x 64 entries of a staged product at once: the largest matrix
  // is more than that, too.
  struct Size {
    int n, rows;
  };
  int compared = 0;
  for (const Size& size : {Size{13, 9}, {37, 41}, {69, 5}}) {
    SCOPED_TRACE(size.n);
    const auto cases = every_routine<TypeParam>(size.n, size.rows);
    for (const support::TeamCase& test : cases)
      for (double x : test.serial()) ASSERT_TRUE(std::isfinite(x)) << test.name;
    EXPECT_EQ(support::runs_that_differ(cases, compared), std::vector<std::string>{});
  }
  EXPECT_EQ(compared, 3 * 11 * 11 * 4 * 2) << "sizes, routines, teams, orders, staged or not";
}

}  // namespace
}  // namespace torchqp::linalg
