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

/// An emulated team whose blocks are of kBlock columns.
template <int kBlock>
struct BlockTeam : support::FiberTeam {
  explicit BlockTeam(const support::FiberTeam& team) : support::FiberTeam(team) {}
};

template <int kBlock>
struct BlockLaunch {
  using Team = BlockTeam<kBlock>;
  support::FiberGrid& grid;
  template <class Body>
  void operator()(Body&& body) const {
    grid.run([&](const support::FiberTeam& team) { body(Team(team)); });
  }
};

/// Calls f(launch, description) for blocks from one tile to more than the matrix.
template <class F>
void for_each_block(F f) {
  for (int lanes : {7, 32}) {
    support::FiberGrid grid(lanes, support::LaneOrder::kShuffled, 3);
    const std::string on = " columns a block, " + std::to_string(lanes) + " lanes";
    f(BlockLaunch<2>{grid}, "2" + on);
    f(BlockLaunch<6>{grid}, "6" + on);
    f(BlockLaunch<16>{grid}, "16" + on);
    f(BlockLaunch<64>{grid}, "64" + on);
  }
}

}  // namespace torchqp::linalg

namespace torchqp {
TORCHQP_BEGIN_ISA_NAMESPACE

template <int kBlock, class Scalar>
inline constexpr int block_size_v<linalg::BlockTeam<kBlock>, Scalar> = kBlock;

TORCHQP_END_ISA_NAMESPACE
}  // namespace torchqp
