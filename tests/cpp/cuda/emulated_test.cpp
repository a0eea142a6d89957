// Whole batches through the launch plan of a GPU, on emulated lanes: the bits of the CPU's product
// path, forward and backward.
#include <gtest/gtest.h>

#include "cpu/systems.hpp"
#include "cuda/emulator.hpp"

namespace torchqp::cuda {
namespace {

using support::Family;
using support::LaneOrder;
using support::QpBatch;
using support::QpSolutions;
using support::same_bits;

constexpr Schedule kSchedules[] = {
    {LaneOrder::kForward, 0}, {LaneOrder::kReverse, 0, true}, {LaneOrder::kShuffled, 3}};

/// The emulated GPU's answers to `problem` have the CPU's bits; returns the CPU's.
template <class T>
QpSolutions<T> expect_cpu_bits(const ProblemBatch<T>& problem, bool with_factor) {
  const Settings settings = default_settings<T>();
  QpSolutions<T> expected(problem.dims, problem.size, with_factor);
  cpu::solve_members(problem, settings, expected, 0, problem.size);
  for (const Schedule& schedule : kSchedules) {
    QpSolutions<T> got(problem.dims, problem.size, with_factor);
    emulate_solve_batch(problem, settings, got.view(), kDevice, schedule);
    EXPECT_TRUE(got.intact());
    for (int64_t i = 0; i < problem.size; ++i)
      EXPECT_TRUE(same_bits(got.member(i), expected.member(i))) << "member " << i;
  }
  return expected;
}

/// The same, of members that all have a solution.
template <class T>
void expect_solved_as_on_cpu(const ProblemBatch<T>& problem) {
  const QpSolutions<T> solutions = expect_cpu_bits(problem, true);
  for (int64_t i = 0; i < problem.size; ++i)
    EXPECT_TRUE(is_solved(solutions.status(i))) << "member " << i;
}

template <class T>
class Emulated : public testing::Test {};
using Elements = testing::Types<float, double>;
TYPED_TEST_SUITE(Emulated, Elements);

TYPED_TEST(Emulated, EveryFamilyHasTheBitsOfTheCpu) {
  for (const Family& family : support::families()) {
    SCOPED_TRACE(family.name);
    expect_cpu_bits(support::random_batch<TypeParam>(family, 5, 11).view(), true);
  }
}

TYPED_TEST(Emulated, FailuresHaveTheBitsOfTheCpu) {
  for (bool bounds : {false, true})
    expect_cpu_bits(support::troubled_batch<TypeParam>(bounds).batch.view(), true);
}

TYPED_TEST(Emulated, WarmStartsHaveTheBitsOfTheCpu) {
  for (const Family& family : support::families()) {
    SCOPED_TRACE(family.name);
    auto batch = support::random_batch<TypeParam>(family, 3, 14);
    const auto cold = cpu::solve_all(batch, default_settings<TypeParam>());
    const auto append = [](std::vector<TypeParam>& to, const TypeParam* from, int count) {
      if (from != nullptr) to.insert(to.end(), from, from + count);
    };
    for (int64_t i = 0; i < batch.size; ++i) {
      append(batch.z0, cold.z(i), family.n), append(batch.nu0, cold.nu(i), family.p);
      append(batch.lam0, cold.lam(i), family.m);
      append(batch.lam_lb0, cold.lam_lb(i), family.n);
      append(batch.lam_ub0, cold.lam_ub(i), family.n);
    }
    for (TypeParam& z : batch.z0) z += TypeParam(1e-2);
    expect_solved_as_on_cpu(batch.view());
  }
}

TYPED_TEST(Emulated, SharedMatricesHaveTheBitsOfTheCpu) {
  for (const Family& family : support::families()) {
    if (family.singular) continue;  // another q may be unbounded below
    SCOPED_TRACE(family.name);
    const auto own = support::random_batch<TypeParam>(family, 3, 15);
    // Other linear terms for the same members, as the two sides of an LPGD step have them: a
    // period of three; or for one member, whose matrices all share.
    for (const std::vector<int64_t>& members :
         {std::vector<int64_t>{0, 1, 2, 0, 1, 2}, {1, 1, 1, 1}}) {
      const auto batch = with_other_terms(own, members, 16);
      const auto problem = repeat_matrices(batch, members.size() == 6 ? 3 : 1);
      EXPECT_TRUE(qp::MemberOrder(problem, 1).repeats());
      expect_solved_as_on_cpu(problem);
    }
  }
}

TYPED_TEST(Emulated, OneMatrixOfItsOwnIsEnoughToFormAnew) {
  using T = TypeParam;
  for (const Family& family : support::families()) {
    SCOPED_TRACE(family.name);
    const auto own = support::random_batch<T>(family, 3, 17);
    for (int which = 0; which < 3; ++which) {
      auto batch = own.pick({0, 0, 0});
      std::vector<T>* const values[] = {&batch.Q, &batch.G, &batch.A};
      *values[which] = which == 0 ? own.Q : which == 1 ? own.G : own.A;
      ProblemBatch<T> problem = batch.view();
      StridedArray<T>* const matrices[] = {&problem.Q, &problem.G, &problem.A};
      for (int other = 0; other < 3; ++other)
        if (other != which) matrices[other]->batch.ndim = 0;
      const QpSolutions<T> solutions = expect_cpu_bits(problem, true);
      EXPECT_TRUE(is_solved(solutions.status(0)));
    }
  }
}

TYPED_TEST(Emulated, EveryLinearisedSystemHasTheBitsOfTheCpu) {
  for (const Family& family : support::families()) {
    SCOPED_TRACE(family.name);
    cpu::Systems<TypeParam> systems(support::random_batch<TypeParam>(family, 4, 12), 7);
    for (bool with_factor : {false, true}) {
      systems.solve(with_factor);
      std::vector<std::vector<double>> expected;
      for (int64_t i = 0; i < systems.batch.size; ++i) expected.push_back(systems.answer(i));
      for (const Schedule& schedule : kSchedules) {
        emulate_kkt_batch(systems.view(with_factor), kDevice, schedule);
        for (int64_t i = 0; i < systems.batch.size; ++i)
          EXPECT_TRUE(same_bits(systems.answer(i), expected[i])) << "member " << i;
      }
    }
  }
}

TYPED_TEST(Emulated, EverySizeOfTeamHasTheBitsOfTheCpu) {
  struct Case {
    int lanes;
    Family family;  // n, m, p, h_lower, h, lb, ub, diagonal, singular, infinite, equalities
  };
  for (const auto& [lanes, family] :
       {Case{4, {"rows", 3, 5, 0, false, true, false, false, false, false, 0, 0}},
        Case{8, {"everything", 9, 7, 2, true, true, true, true, false, false, 0.3, 0.1}},
        Case{16, {"two-sided", 12, 17, 3, true, true, false, false, false, false, 0.5, 0.1}},
        Case{32, {"rows", 30, 28, 4, false, true, false, false, false, false, 0, 0}},
        Case{128, {"rows", 40, 50, 6, false, true, false, false, false, false, 0, 0}},
        Case{128, {"bounds", 40, 30, 4, true, true, true, true, false, false, 0.3, 0.1}},
        Case{256, {"bounds", 70, 20, 3, false, true, true, true, false, false, 0.3, 0.1}}}) {
    SCOPED_TRACE(lanes);
    const auto batch = support::random_batch<TypeParam>(family, 2, 13);
    EXPECT_EQ(plan_solve<TypeParam>(batch.dims, batch.size, kDevice).lanes, lanes);
    expect_solved_as_on_cpu(batch.view());
  }
}

}  // namespace
}  // namespace torchqp::cuda
