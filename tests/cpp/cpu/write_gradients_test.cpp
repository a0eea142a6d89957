// The gradients of a batch in its data: two members in hand-made numbers, the second of which was
// not solved, and rows of every length.
#include "cpu/write_gradients.hpp"

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
    write_gradients<2>(batch, 0, 2);
  }
};

TEST(WriteGradients, WritesTheFormulasAndZerosForAFailedMember) {
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

TEST(WriteGradients, OfADiagonalItIsTheProduct) {
  EXPECT_EQ(Example(true).Q, (Numbers{26, 51, 0, 0}));
}

/// One member with m = p = 3 and values that no two entries share.
void expect_every_entry(int n) {
  const auto numbers = [](int size, double from) {
    Numbers values;
    for (int i = 0; i < size; ++i) values.push_back(from + 1.0 / (i + 2));
    return values;
  };
  const Numbers z = numbers(n, 1), d_z = numbers(n, -2), nu = numbers(3, 3), d_nu = numbers(3, -4);
  const Numbers lam = numbers(3, 5), d_lam = numbers(3, -6);
  const std::vector<int8_t> active(3, 1);
  const std::vector<int32_t> status = {0};
  constexpr double kGuard = 12345;
  Numbers Q(n * n + 1, kGuard), G(3 * n + 1, kGuard), A(3 * n + 1, kGuard);
  GradientBatch<double> batch;
  batch.dims = {n, 3, 3, true, true, false, false, false};
  batch.size = 1;
  batch.z = z.data(), batch.nu = nu.data(), batch.lam = lam.data();
  batch.d_z = d_z.data(), batch.d_nu = d_nu.data(), batch.d_lam = d_lam.data();
  batch.active = active.data(), batch.status = status.data();
  batch.Q = Q.data(), batch.G = G.data(), batch.A = A.data();
  write_gradients<2>(batch, 0, 1);
  for (int j = 0; j < n; ++j) {
    for (int i = 0; i < n; ++i)
      EXPECT_EQ(Q[i * n + j], d_z[i] / 2 * z[j] + z[i] / 2 * d_z[j]) << i << " " << j;
    for (int i = 0; i < 3; ++i) {
      EXPECT_EQ(G[i * n + j], d_lam[i] * z[j] + lam[i] * d_z[j]) << i << " " << j;
      EXPECT_EQ(A[i * n + j], d_nu[i] * z[j] + nu[i] * d_z[j]) << i << " " << j;
    }
  }
  EXPECT_EQ(Q.back(), kGuard);
  EXPECT_EQ(G.back(), kGuard);
  EXPECT_EQ(A.back(), kGuard);
}

TEST(WriteGradients, WritesRowsOfEveryLength) {
  for (int n = 1; n <= 11; ++n) {
    SCOPED_TRACE(n);
    expect_every_entry(n);
  }
}

}  // namespace
}  // namespace torchqp::cpu
