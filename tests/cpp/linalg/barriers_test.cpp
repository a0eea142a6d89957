// Every barrier of the routines is needed, and needed by a test: see support/mutation.hpp.
#include <gtest/gtest.h>

#include <iostream>

#include "linalg/every_routine.hpp"
#include "support/mutation.hpp"

namespace torchqp::linalg {
namespace {

TEST(Barriers, EveryOneIsMissedWhenItIsOff) {
  const auto report = support::switch_off_barriers(every_routine<double>(13, 9));
  std::cout << report.table();
  EXPECT_EQ(report.unreached_places("linalg"), std::vector<std::string>{});
  EXPECT_EQ(report.unnoticed_places(), std::vector<std::string>{});
}

}  // namespace
}  // namespace torchqp::linalg
