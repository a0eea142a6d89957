// The two halves of the LPGD adjoint in hand-made numbers: three members, of which the second was not
// solved and the third has no cotangent.
#include "cpu/lpgd_batch.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "core/lpgd_member.hpp"
#include "support/fiber_team.hpp"

namespace torchqp::cpu {
namespace {

using Numbers = std::vector<double>;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr int32_t kFailed = static_cast<int32_t>(Status::kPrimalInfeasible);
constexpr int kMembers = 3;

/// [batch, row] of a vector without gaps.
StridedArray<double> array(const Numbers& from, int64_t row) {
  StridedArray<double> result;
  result.data = from.data(), result.row = 1;
  result.batch.ndim = 1, result.batch.sizes[0] = kMembers, result.batch.strides[0] = row;
  return result;
}

/// n = 2, m = 2, p = 1, all bounds; z_1 is fixed. Every member has the same data; h and lb have an
/// infinite entry each.
struct Example {
  Numbers q = {3, -7}, h_lower = {-5, -kInf}, h = {kInf, 6}, b = {9}, lb = {-1e20, 2}, ub = {4, 2};
  Numbers g_z = {1, 2}, g_nu = {-4}, g_lam = {0.5, 1}, g_lb = {3, 1}, g_ub = {2, -1};
  Numbers z = {1, 2}, nu = {10}, lam = {-20, 30}, lam_lb = {0, 8}, lam_ub = {40, 6};
  std::vector<int32_t> status = {0, kFailed, 1};
  Numbers step, moved_q, moved_h_lower, moved_h, moved_b, moved_lb, moved_ub;
  Numbers end_z, end_nu, end_lam, end_lam_lb, end_lam_ub;
  std::vector<int32_t> end_status, info = {-1, -1, -1};
  Numbers d_z, mean_z, d_nu, mean_nu, d_lam, mean_lam, h_lower_grad, h_grad, lb_grad, ub_grad;
  LpgdBatch<double> batch;

  Example(int ends, bool increases) {
    for (Numbers* values : {&q, &h_lower, &h, &b, &lb, &ub, &g_z, &g_nu, &g_lam, &g_lb, &g_ub, &z,
                            &nu, &lam, &lam_lb, &lam_ub})
      repeat(*values);
    for (Numbers* g : {&g_z, &g_nu, &g_lam, &g_lb, &g_ub})
      std::fill(g->begin() + 2 * (g->size() / 3), g->end(), 0);
    for (Numbers* values : {&z, &nu, &lam, &lam_lb, &lam_ub})
      std::fill_n(values->begin() + values->size() / 3, values->size() / 3, kNan);
    batch.dims = {2, 2, 1, true, true, true, true, false};
    batch.size = kMembers, batch.ends = ends, batch.increases = increases, batch.tau = 0.5;
    batch.q = array(q, 2), batch.h_lower = array(h_lower, 2), batch.h = array(h, 2);
    batch.b = array(b, 1), batch.lb = array(lb, 2), batch.ub = array(ub, 2);
    batch.g_z = array(g_z, 2), batch.g_nu = array(g_nu, 1), batch.g_lam = array(g_lam, 2);
    batch.g_lb = array(g_lb, 2), batch.g_ub = array(g_ub, 2);
    batch.z = z.data(), batch.nu = nu.data(), batch.lam = lam.data();
    batch.lam_lb = lam_lb.data(), batch.lam_ub = lam_ub.data(), batch.status = status.data();
    const auto fresh = [](Numbers& to, size_t size) { return (to.assign(size, -99), to.data()); };
    const size_t of_ends = size_t{kMembers} * ends;
    batch.step = fresh(step, kMembers);
    batch.moved_q = fresh(moved_q, 2 * of_ends), batch.moved_b = fresh(moved_b, of_ends);
    batch.moved_h_lower = fresh(moved_h_lower, 2 * of_ends);
    batch.moved_h = fresh(moved_h, 2 * of_ends);
    batch.moved_lb = fresh(moved_lb, 2 * of_ends), batch.moved_ub = fresh(moved_ub, 2 * of_ends);
    batch.d_z = fresh(d_z, 6), batch.mean_z = fresh(mean_z, 6);
    batch.d_nu = fresh(d_nu, 3), batch.mean_nu = fresh(mean_nu, 3);
    batch.d_lam = fresh(d_lam, 6), batch.mean_lam = fresh(mean_lam, 6);
    batch.h_lower_grad = fresh(h_lower_grad, 6), batch.h_grad = fresh(h_grad, 6);
    batch.lb_grad = fresh(lb_grad, 6), batch.ub_grad = fresh(ub_grad, 6);
    batch.info = info.data();
  }

  /// Solutions at the ends: the own one plus `by` at the first, minus it at the other.
  void reach(double by, std::vector<int32_t> statuses) {
    end_status = std::move(statuses);
    const auto shifted = [&](const Numbers& centre, Numbers& ends) {
      for (int end = 0; end < batch.ends; ++end)
        for (double value : centre) ends.push_back(value + (end == 0 ? by : -by));
      return ends.data();
    };
    batch.end_z = shifted(z, end_z), batch.end_nu = shifted(nu, end_nu);
    batch.end_lam = shifted(lam, end_lam), batch.end_lam_lb = shifted(lam_lb, end_lam_lb);
    batch.end_lam_ub = shifted(lam_ub, end_lam_ub), batch.end_status = end_status.data();
  }

  static void repeat(Numbers& values) {
    const Numbers once = values;
    for (int i = 1; i < kMembers; ++i) values.insert(values.end(), once.begin(), once.end());
  }
};

Numbers first_of(const Numbers& values, size_t count, size_t from = 0) {
  return {values.begin() + from, values.begin() + from + count};
}

TEST(LpgdBatch, MovesBothWaysAndKeepsInfiniteSides) {
  Example of(2, true);
  lpgd_move_batch(of.batch, 0, kMembers);
  EXPECT_EQ(of.step[0], 0.5);
  EXPECT_TRUE(std::isnan(of.step[1])) << "a failed member";
  EXPECT_TRUE(std::isnan(of.step[2])) << "a member without cotangents";
  EXPECT_EQ(first_of(of.moved_q, 2), (Numbers{3.5, -6}));
  EXPECT_EQ(first_of(of.moved_q, 2, 6), (Numbers{2.5, -8})) << "the other end";
  EXPECT_TRUE(std::isnan(of.moved_q[2]) && std::isnan(of.moved_q[4])) << "no valid problem";
  EXPECT_EQ(first_of(of.moved_h, 2), (Numbers{kInf, 5.5}));
  EXPECT_EQ(first_of(of.moved_h_lower, 2, 6), (Numbers{-4.75, -kInf}));
  EXPECT_EQ(of.moved_b[0], 11);
  EXPECT_EQ(of.moved_b[3], 7);
  // z_1 is fixed and held from below: both of its bounds move as lb does.
  EXPECT_EQ(first_of(of.moved_lb, 2), (Numbers{-1e20, 2.5}));
  EXPECT_EQ(first_of(of.moved_ub, 2), (Numbers{3, 2.5}));
  of.lam_ub[1] = 9;  // now from above
  lpgd_move_batch(of.batch, 0, kMembers);
  EXPECT_EQ(first_of(of.moved_lb, 2, 6), (Numbers{-1e20, 1.5}));
  EXPECT_EQ(first_of(of.moved_ub, 2, 6), (Numbers{5, 1.5}));
}

TEST(LpgdBatch, ARelativeStepIsMeasuredByTheCostAndAllCotangents) {
  Example of(1, false);
  of.batch.relative = true, of.batch.rho = 2;
  lpgd_move_batch(of.batch, 0, kMembers);
  EXPECT_EQ(of.step[0], 1) << "0.5 * (1 + 7) / 4";
  EXPECT_EQ(first_of(of.moved_q, 2), (Numbers{0, -13})) << "q - g_z - 2 z";
  of.g_z[1] = kNan;
  lpgd_move_batch(of.batch, 0, kMembers);
  EXPECT_TRUE(std::isnan(of.step[0]));
}

TEST(LpgdBatch, TheDifferenceIsThatOfTheEnds) {
  Example of(2, true);
  lpgd_move_batch(of.batch, 0, kMembers);
  of.reach(25, {0, 6, 6, 0, 6, 6});
  lpgd_difference_batch(of.batch, 0, kMembers);
  EXPECT_EQ(of.info, (std::vector<int32_t>{0, 0, 0}));
  EXPECT_EQ(of.d_z, (Numbers{50, 50, 0, 0, 0, 0}));
  EXPECT_EQ(of.mean_z, (Numbers{1, 2, 0, 0, 1, 2}));
  EXPECT_EQ(of.d_nu, (Numbers{50, 0, 0}));
  EXPECT_EQ(of.mean_nu, (Numbers{10, 0, 10}));
  EXPECT_EQ(of.d_lam, (Numbers{50, 50, 0, 0, 0, 0}));
  EXPECT_EQ(of.mean_lam, (Numbers{-20, 30, 0, 0, -20, 30}));
  // lam goes from -45 to 5 and from 5 to 55.
  EXPECT_EQ(of.h_grad, (Numbers{-5, -50, 0, 0, 0, 0}));
  EXPECT_EQ(of.h_lower_grad, (Numbers{-45, 0, 0, 0, 0, 0}));
  EXPECT_EQ(of.lb_grad, (Numbers{50, 50, 0, 0, 0, 0}));
  EXPECT_EQ(of.ub_grad, (Numbers{-50, -50, 0, 0, 0, 0}));
}

TEST(LpgdBatch, TheSolutionStandsInForAnEndThatFailed) {
  Example of(2, true);
  lpgd_move_batch(of.batch, 0, kMembers);
  of.reach(25, {kFailed, 6, 6, 0, 6, 6});
  lpgd_difference_batch(of.batch, 0, kMembers);
  EXPECT_EQ(of.info, (std::vector<int32_t>{1, 0, 0}));
  EXPECT_EQ(first_of(of.d_z, 2), (Numbers{50, 50})) << "25 in a step of a half";
  EXPECT_EQ(first_of(of.mean_z, 2), (Numbers{-11.5, -10.5}));
  of.end_status[3] = kFailed;
  lpgd_difference_batch(of.batch, 0, kMembers);
  EXPECT_EQ(of.info[0], 1);
  EXPECT_EQ(first_of(of.d_z, 2), (Numbers{0, 0}));
  EXPECT_EQ(first_of(of.mean_z, 2), (Numbers{1, 2}));
}

TEST(LpgdBatch, OneEndIsComparedWithTheSolutionItself) {
  for (bool increases : {true, false}) {
    Example of(1, increases);
    lpgd_move_batch(of.batch, 0, kMembers);
    of.reach(25, {0, 6, 6});
    lpgd_difference_batch(of.batch, 0, kMembers);
    const double d = increases ? 50 : -50;
    EXPECT_EQ(first_of(of.d_z, 2), (Numbers{d, d})) << increases;
    EXPECT_EQ(first_of(of.ub_grad, 2), (Numbers{-d, -d})) << increases;
    EXPECT_EQ(first_of(of.mean_z, 2), (Numbers{13.5, 14.5})) << increases;
  }
}

TEST(LpgdBatch, EveryTeamWritesTheSame) {
  Example one(2, true), many(2, true);
  lpgd_move_batch(one.batch, 0, kMembers);
  one.reach(25, {0, 6, 6, 0, 6, 6}), many.reach(25, {0, 6, 6, 0, 6, 6});
  lpgd_difference_batch(one.batch, 0, kMembers);
  support::FiberGrid grid(5, support::LaneOrder::kShuffled, 1);
  grid.run([&](const support::FiberTeam& team) {
    for (int i = 0; i < kMembers; ++i) lpgd_move(team, many.batch, i);
  });
  grid.run([&](const support::FiberTeam& team) {
    for (int i = 0; i < kMembers; ++i) lpgd_difference(team, many.batch, i);
  });
  EXPECT_EQ(first_of(one.moved_q, 2), first_of(many.moved_q, 2));
  EXPECT_EQ(first_of(one.moved_ub, 2, 6), first_of(many.moved_ub, 2, 6));
  EXPECT_EQ(one.d_z, many.d_z);
  EXPECT_EQ(one.h_grad, many.h_grad);
  EXPECT_EQ(one.lb_grad, many.lb_grad);
  EXPECT_EQ(one.info, many.info);
}

}  // namespace
}  // namespace torchqp::cpu
