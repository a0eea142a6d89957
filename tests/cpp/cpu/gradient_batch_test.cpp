// The gradients of a batch in its data: two members in hand-made numbers, the second of which was
// not solved.
#include "cpu/gradient_batch.hpp"

#include <gtest/gtest.h>

#include <limits>
#include <vector>

#include "core/status.hpp"

namespace torchqp::cpu {
namespace {

using Numbers = std::vector<double>;

/// n = 2, m = 2 (the first row at its upper side, the second at its lower one), p = 1, bounds (z_0
/// at ub, z_1 at lb). The second member is NaN all over.
struct Example {
  Numbers z = {2, 3}, nu = {5}, lam = {7, -11}, d_z = {13, 17}, d_nu = {19}, d_lam = {23, 29};
  Numbers d_bound = {31, 37}, g_slack = {41, 43};
  std::vector<int8_t> active = {1, -1, 1, -1, 1, -1, 1, -1};
  std::vector<int32_t> status = {0, static_cast<int32_t>(Status::kPrimalInfeasible)};
  Numbers Q, G = Numbers(8, -1), h_lower = Numbers(4, -1), h = Numbers(4, -1), A = Numbers(4, -1);
  Numbers b = Numbers(2, -1), lb = Numbers(4, -1), ub = Numbers(4, -1);

  explicit Example(bool diagonal) : Q(diagonal ? 4 : 8, -1) {
    for (Numbers* values : {&z, &nu, &lam, &d_z, &d_nu, &d_lam, &d_bound, &g_slack})
      values->resize(2 * values->size(), std::numeric_limits<double>::quiet_NaN());
    GradientBatch<double> batch;
    batch.dims = {2, 2, 1, true, true, true, true, diagonal};
    batch.size = 2;
    batch.z = z.data(), batch.nu = nu.data(), batch.lam = lam.data();
    batch.d_z = d_z.data(), batch.d_nu = d_nu.data(), batch.d_lam = d_lam.data();
    batch.d_bound = d_bound.data(), batch.g_slack = g_slack.data();
    batch.active = active.data(), batch.status = status.data();
    batch.Q = Q.data(), batch.G = G.data(), batch.h_lower = h_lower.data(), batch.h = h.data();
    batch.A = A.data(), batch.b = b.data(), batch.lb = lb.data(), batch.ub = ub.data();
    gradient_batch(batch, 0, 2);
  }
};

TEST(GradientBatch, WritesTheFormulasAndZerosForAFailedMember) {
  const Example of(false);
  // (d_z z' + z d_z') / 2; (d_lam - g_slack) z' + lam d_z'; d_nu z' + nu d_z'.
  EXPECT_EQ(of.Q, (Numbers{26, 36.5, 36.5, 51, 0, 0, 0, 0}));
  EXPECT_EQ(of.G, (Numbers{55, 65, -171, -229, 0, 0, 0, 0}));
  EXPECT_EQ(of.A, (Numbers{103, 142, 0, 0}));
  EXPECT_EQ(of.b, (Numbers{-19, 0}));
  EXPECT_EQ(of.h, (Numbers{18, 43, 0, 0})) << "-d_lam at the upper side, and the slack's cotangent";
  EXPECT_EQ(of.h_lower, (Numbers{0, -29, 0, 0}));
  EXPECT_EQ(of.ub, (Numbers{-31, 0, 0, 0}));
  EXPECT_EQ(of.lb, (Numbers{0, -37, 0, 0}));
}

TEST(GradientBatch, OfADiagonalItIsTheProduct) {
  EXPECT_EQ(Example(true).Q, (Numbers{26, 51, 0, 0}));
}

}  // namespace
}  // namespace torchqp::cpu
