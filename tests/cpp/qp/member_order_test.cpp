// Every member has one place in the order, and repetitions of a pack follow it.
#include "qp/member_order.hpp"

#include <gtest/gtest.h>

#include <vector>

namespace torchqp::qp {
namespace {

/// A batch whose Q repeats after `period` members; 0: all members share it.
ProblemBatch<double> batch_of(int64_t size, int64_t period) {
  static const double entry = 1;
  ProblemBatch<double> problem;
  problem.size = size;
  problem.Q.data = &entry;
  if (period > 0) {
    problem.Q.batch.ndim = 1;
    problem.Q.batch.sizes[0] = period;
    problem.Q.batch.strides[0] = 1;
  }
  return problem;
}

TEST(MemberOrder, IsABijectionWhereverARangeBegins) {
  for (int64_t width : {1, 4, 8}) {
    for (int64_t period : {0, 1, 3, 8, 10, 24}) {
      for (int64_t times : {1, 2, 5}) {
        const int64_t size = times * (period > 0 ? period : 7);
        const MemberOrder order(batch_of(size, period), width);
        for (int64_t piece : {int64_t{1}, int64_t{3}, width, size}) {
          std::vector<int> seen(size, 0);
          for (int64_t begin = 0; begin < size; begin += piece) {
            const int64_t end = std::min(begin + piece, size);
            for (int64_t place = begin; place < end;) {
              const MemberOrder::Run run = order.run(place, end);
              ASSERT_GE(run.length, 1);
              ASSERT_LE(run.length, std::min(width, end - place));
              for (int64_t i = 0; i < run.length; ++i) {
                ASSERT_LT(run.member + i, size);
                ++seen[run.member + i];
              }
              place += run.length;
            }
          }
          EXPECT_EQ(seen, std::vector<int>(size, 1))
              << "width " << width << ", period " << period << ", pieces of " << piece;
        }
      }
    }
  }
}

TEST(MemberOrder, RepetitionsOfAPackFollowIt) {
  const MemberOrder order(batch_of(20, 10), 8);
  std::vector<int64_t> starts;
  for (int64_t place = 0; place < 20;) {
    const MemberOrder::Run run = order.run(place, 20);
    starts.push_back(run.member);
    place += run.length;
  }
  EXPECT_EQ(starts, (std::vector<int64_t>{0, 10, 8, 18}));
  EXPECT_TRUE(order.repeats());
}

TEST(MemberOrder, ABatchOfItsOwnMatricesKeepsItsOrder) {
  const MemberOrder order(batch_of(20, 20), 8);
  EXPECT_FALSE(order.repeats());
  EXPECT_EQ(order.run(8, 20).member, 8);
  EXPECT_TRUE(MemberOrder(batch_of(20, 0), 8).repeats()) << "shared by all";
  EXPECT_FALSE(MemberOrder(batch_of(8, 0), 8).repeats()) << "one pack";
}

}  // namespace
}  // namespace torchqp::qp
