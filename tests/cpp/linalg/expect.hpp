#pragma once
// The comparisons that every linalg test makes.

#include <gtest/gtest.h>

#include <string>

#include "support/launch.hpp"
#include "support/packed.hpp"

namespace torchqp::linalg {

using Scalars = ::testing::Types<float, double, Pack<double, 4>>;

/// Sizes around the tiles (1, 2, 4) and around a warp.
inline constexpr int kSizes[] = {1, 2, 4, 5, 31, 32, 33};

/// Runs compute<Scalar>(launch, data) serially, on every emulated team and, problem by problem,
/// with plain scalars; all must agree bit for bit. `data` is a tuple of Problems. Returns the
/// serial result.
///
/// compute.template operator()<Scalar>(launch, data) -> Problems<Element<Scalar>>.
template <class Scalar, class Compute, class... T>
support::Problems<Element<Scalar>> expect_one_answer(Compute compute,
                                                     const support::Problems<T>&... data) {
  const auto serial = compute.template operator()<Scalar>(support::SerialLaunch{}, data...);
  support::for_each_fiber_launch([&](const auto& launch, const std::string& description) {
    const auto team = compute.template operator()<Scalar>(launch, data...);
    for (int w = 0; w < width_v<Scalar>; ++w)
      EXPECT_TRUE(support::same_bits(team[w], serial[w])) << description << ", problem " << w;
  });
  if constexpr (width_v < Scalar >> 1)
    for (int w = 0; w < width_v<Scalar>; ++w) {
      const auto alone = compute.template operator()<Element<Scalar>>(
          support::SerialLaunch{}, support::Problems<T>{data[w]}...);
      EXPECT_TRUE(support::same_bits(alone[0], serial[w])) << "problem " << w << " alone";
    }
  return serial;
}

/// |actual_e - expected_e| <= bound_e for every entry e.
template <class T>
void expect_within(const std::vector<T>& actual, const std::vector<long double>& expected,
                   const std::vector<long double>& bound) {
  ASSERT_EQ(actual.size(), expected.size());
  for (size_t e = 0; e < actual.size(); ++e)
    ASSERT_LE(std::abs(actual[e] - expected[e]), bound[e])
        << "entry " << e << " of " << actual.size();
}

}  // namespace torchqp::linalg
