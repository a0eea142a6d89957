// How many problems are solved in one register.
#include <gtest/gtest.h>

#include "cpu/solve_batch.hpp"

namespace torchqp::cpu {
namespace {

TEST(PackWidth, IsAPowerOfTwoAndFloatsAreTwiceAsMany) {
  const int width = pack_width<double>();
  EXPECT_TRUE(width == 2 || width == 4 || width == 8) << width;
  EXPECT_EQ(pack_width<float>(), 2 * width);
}

template <class T>
int members(int n, int m, int p, bool diagonal) {
  Dims dims;
  dims.n = n, dims.m = m, dims.p = p, dims.diagonal = diagonal;
  return members_per_pack<T>(dims);
}

template <class T>
void expect_large_problems_alone() {
  const int width = pack_width<T>();
  EXPECT_EQ(members<T>(160, 100, 60, false), width);
  EXPECT_EQ(members<T>(161, 0, 0, false), 1);
  EXPECT_EQ(members<T>(10, 101, 60, false), 1) << "rows count, of G and A together";
  EXPECT_EQ(members<T>(400, 100, 100, true), width) << "no matrix, and few rows";
  EXPECT_EQ(members<T>(400, 101, 100, true), 1) << "too many rows for Q to stay a diagonal";
}

TEST(MembersPerPack, LargeProblemsAreSolvedAlone) {
  expect_large_problems_alone<float>();
  expect_large_problems_alone<double>();
}

}  // namespace
}  // namespace torchqp::cpu
