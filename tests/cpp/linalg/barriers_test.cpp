// Every barrier of the routines is needed, and needed by a test: see support/mutation.hpp.
#include <gtest/gtest.h>

#include <iostream>

#include "linalg/every_routine.hpp"
#include "support/mutation.hpp"

namespace torchqp::linalg {
namespace {

TEST(Barriers, EveryOneIsMissedWhenItIsOff) {
  if (support::kThreadSanitizer) GTEST_SKIP() << "without a barrier the lanes race on purpose";
  const auto report = support::switch_off_barriers(every_routine<double>(13, 9));
  std::cout << report.table();
  // One is there for a reader's sake: after the staged factorization has copied the diagonal, the
  // product that overwrites it has a barrier of its own before it writes.
  const std::vector<support::Barrier> unnoticed = report.unnoticed();
  ASSERT_EQ(unnoticed.size(), 1u);
  EXPECT_EQ(unnoticed[0].site, Site::kCholeskyTrailing);
  EXPECT_EQ(report.barriers.size(), 23u) << "a new barrier needs a case here";
}

}  // namespace
}  // namespace torchqp::linalg
