// Whole batches through the launch plan of a GPU, on emulated lanes: the bits of the CPU's product
// path, forward and backward.
#include <gtest/gtest.h>

#include "cpu/systems.hpp"
#include "cuda/emulator.hpp"

namespace torchqp::cuda {
namespace {

using support::LaneOrder;
using support::QpBatch;
using support::QpSolutions;
using support::same_bits;

constexpr Schedule kSchedules[] = {{LaneOrder::kForward, 0}, {LaneOrder::kShuffled, 3}};

/// Largest difference that is not one of NaN from NaN, and where; zero when the bits are the same.
template <class T>
void expect_same(const QpSolutions<T>& got, const QpSolutions<T>& expected, int64_t size) {
  for (int64_t i = 0; i < size; ++i)
    EXPECT_TRUE(same_bits(got.member(i), expected.member(i))) << "member " << i;
}

template <class T>
void expect_cpu_bits(const QpBatch<T>& batch, bool with_factor) {
  const Settings settings = default_settings<T>();
  const QpSolutions<T> expected = cpu::solve_all(batch, settings, with_factor);
  for (const Schedule& schedule : kSchedules) {
    QpSolutions<T> got(batch.dims, batch.size, with_factor);
    emulate_solve_batch(batch.view(), settings, got.view(), kDevice, schedule);
    EXPECT_TRUE(got.intact());
    expect_same(got, expected, batch.size);
  }
}

template <class T>
class Emulated : public testing::Test {};
using Elements = testing::Types<float, double>;
TYPED_TEST_SUITE(Emulated, Elements);

TYPED_TEST(Emulated, EveryFamilyHasTheBitsOfTheCpu) {
  for (const support::Family& family : support::families()) {
    SCOPED_TRACE(family.name);
    expect_cpu_bits(support::random_batch<TypeParam>(family, 5, 11), true);
  }
}

TYPED_TEST(Emulated, FailuresHaveTheBitsOfTheCpu) {
  for (bool bounds : {false, true})
    expect_cpu_bits(support::troubled_batch<TypeParam>(bounds).batch, true);
}

TYPED_TEST(Emulated, EveryLinearisedSystemHasTheBitsOfTheCpu) {
  for (const support::Family& family : support::families()) {
    SCOPED_TRACE(family.name);
    cpu::Systems<TypeParam> systems(support::random_batch<TypeParam>(family, 4, 12), 7);
    for (bool with_factor : {false, true}) {
      systems.solve(with_factor);
      std::vector<std::vector<double>> expected;
      for (int64_t i = 0; i < systems.batch.size; ++i) expected.push_back(systems.answer(i));
      emulate_kkt_batch(systems.view(with_factor), kDevice, kSchedules[1]);
      for (int64_t i = 0; i < systems.batch.size; ++i)
        EXPECT_TRUE(same_bits(systems.answer(i), expected[i])) << "member " << i;
    }
  }
}

TYPED_TEST(Emulated, EverySizeOfTeamHasTheBitsOfTheCpu) {
  for (const support::Family& family :
       {support::Family{"4 lanes", 3, 5, 0, false, true, false, false, false, false, 0, 0},
        support::Family{"16 lanes", 12, 17, 3, true, true, false, false, false, false, 0.5, 0.1},
        support::Family{"a warp", 30, 33, 4, false, true, false, false, false, false, 0, 0},
        support::Family{"a block", 40, 60, 6, false, true, false, false, false, false, 0, 0}}) {
    SCOPED_TRACE(family.name);
    expect_cpu_bits(support::random_batch<TypeParam>(family, 2, 13), true);
  }
}

}  // namespace
}  // namespace torchqp::cuda
