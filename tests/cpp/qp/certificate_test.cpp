// Problems without a solution: their status and the certificate that proves it, checked on the data
// in long double.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>

#include "qp/run_adjoint.hpp"

namespace torchqp::qp {
namespace {

using Batch = support::QpBatch<double>;

/// min 1/2 z'z + q'z with these rows: `sides` gives h_lower and h, or b alone.
Batch rows_problem(int n, const std::vector<double>& rows, const std::vector<double>& lower,
                   const std::vector<double>& upper, const std::vector<double>& equal) {
  Batch batch;
  batch.size = 1;
  batch.dims.n = n, batch.dims.m = static_cast<int>(upper.size());
  batch.dims.p = static_cast<int>(equal.size());
  batch.dims.h_upper = !upper.empty(), batch.dims.h_lower = !lower.empty();
  batch.Q.resize(n * n);
  for (int i = 0; i < n; ++i) batch.Q[i * n + i] = 1, batch.q.push_back(0.3 * (i + 1));
  batch.G.assign(rows.begin(), rows.begin() + n * batch.dims.m);
  batch.A.assign(rows.begin() + n * batch.dims.m, rows.end());
  batch.h_lower = lower, batch.h = upper, batch.b = equal;
  return batch;
}

/// Status, and of a certificate the error |A'nu + G'lam| over -support: 1 / the size of the z that it
/// does not exclude.
struct Verdict {
  int status;
  double error;
};

Verdict judge(const Batch& batch, Settings settings = {}) {
  const auto out = run_solver<double>(support::SerialLaunch{}, batch, {settings})[0];
  const int n = batch.dims.n, m = batch.dims.m, p = batch.dims.p;
  const double *nu = out.data() + kZ + n, *lam = nu + p;
  long double support = 0, image = 0;
  for (int i = 0; i < p; ++i) support += (long double){batch.b[i]} * nu[i];
  for (int i = 0; i < m; ++i)
    support += lam[i] > 0   ? (long double){batch.h[i]} * lam[i]
               : lam[i] < 0 ? (long double){batch.h_lower[i]} * lam[i]
                            : 0.0L;
  for (int j = 0; j < n; ++j) {
    long double sum = 0;
    for (int i = 0; i < p; ++i) sum += (long double){batch.A[i * n + j]} * nu[i];
    for (int i = 0; i < m; ++i) sum += (long double){batch.G[i * n + j]} * lam[i];
    image = std::max(image, std::abs(sum));
  }
  const double error = support < 0 ? static_cast<double>(-image / support) : INFINITY;
  return {static_cast<int>(out[kStatus]), error};
}

constexpr int kInfeasible = static_cast<int>(Status::kPrimalInfeasible);

TEST(Certificate, ContradictoryRowsAreProvedDownToSmallGaps) {
  const std::vector<double> a = {1.3, -0.7, 0.4};
  for (double gap : {1.0, 1e-3, 1e-5, 1e-6}) {
    const auto batch =
        rows_problem(3, {1.3, -0.7, 0.4, -1.3, 0.7, -0.4, 1, 1, 1}, {}, {-0.5 - gap, 0.5, 2}, {});
    const Verdict verdict = judge(batch);
    EXPECT_EQ(verdict.status, kInfeasible) << gap;
    EXPECT_LE(verdict.error, 1e-6) << gap;
  }
}

TEST(Certificate, ContradictoryEqualitiesAreProvedDownToSmallGaps) {
  for (double gap : {1e-3, 1e-4, 1e-5, 1e-6}) {
    // Of two equalities, and of one with a row.
    const auto equal = rows_problem(3, {1.3, -0.7, 0.4, 1.3, -0.7, 0.4}, {}, {}, {0.5, 0.5 + gap});
    EXPECT_EQ(judge(equal).status, kInfeasible) << gap;
    EXPECT_LE(judge(equal).error, 1e-6) << gap;
    const auto row = rows_problem(3, {1.3, -0.7, 0.4, 1.3, -0.7, 0.4}, {}, {0.5 - gap}, {0.5});
    EXPECT_EQ(judge(row).status, kInfeasible) << gap;
    EXPECT_LE(judge(row).error, 1e-6) << gap;
  }
}

TEST(Certificate, GapsBelowTheTolerancesNeedTighterOnes) {
  Settings tight;
  tight.eps_abs = tight.eps_rel = 1e-13;
  for (double gap : {1e-7, 1e-8, 1e-9}) {
    const auto batch = rows_problem(3, {1.3, -0.7, 0.4, 1.3, -0.7, 0.4}, {}, {}, {0.5, 0.5 + gap});
    EXPECT_EQ(judge(batch, tight).status, kInfeasible) << gap;
    EXPECT_LE(judge(batch, tight).error, 1e-6) << gap;
  }
}

TEST(Certificate, InconsistentEqualitiesAndZeroRowsAreProved) {
  EXPECT_EQ(judge(rows_problem(3, {1, 2, 3, 2, 4, 6}, {}, {}, {1, 3})).status, kInfeasible);
  EXPECT_LE(judge(rows_problem(3, {1, 2, 3, 2, 4, 6}, {}, {}, {1, 3})).error, 1e-6);
  EXPECT_EQ(judge(rows_problem(3, {0, 0, 0}, {}, {}, {1})).status, kInfeasible);
  EXPECT_EQ(judge(rows_problem(3, {0, 0, 0}, {}, {-1}, {})).status, kInfeasible);
  EXPECT_EQ(judge(rows_problem(3, {0, 0, 0}, {}, {}, {0})).status, 0);
}

TEST(Certificate, AlmostEmptySetsAreNotCalledEmpty) {
  for (double width : {1e-3, 1e-6, 1e-9, 0.0}) {
    const auto batch =
        rows_problem(3, {1.3, -0.7, 0.4, -1.3, 0.7, -0.4, 1, 1, 1}, {}, {-0.5 + width, 0.5, 2}, {});
    EXPECT_EQ(judge(batch).status, 0) << width;
  }
}

TEST(Certificate, OverflowProvesNothing) {
  for (double huge : {1e300, -1e300, 1.7e308}) {
    auto batch = rows_problem(3, {1.3, -0.7, 0.4, 1, 1, 1}, {}, {0.5, 2}, {});
    batch.q[1] = huge;
    const int status = judge(batch).status;
    EXPECT_NE(status, kInfeasible) << huge;
    EXPECT_NE(status, static_cast<int>(Status::kDualInfeasible)) << huge;
  }
}

TEST(Certificate, UnreachableTolerancesKeepTheBestPoint) {
  Settings settings;
  settings.eps_abs = settings.eps_rel = 0;
  const auto batch = rows_problem(3, {1.3, -0.7, 0.4, 1, 1, 1}, {}, {-0.5, -2}, {});
  const auto tight = run_solver<double>(support::SerialLaunch{}, batch, {settings})[0];
  const auto usual = run_solver<double>(support::SerialLaunch{}, batch, {Settings{}})[0];
  EXPECT_EQ(usual[kStatus], 0);
  EXPECT_LE(tight[kStatus], 1);
  for (int i = 0; i < 3; ++i) EXPECT_NEAR(tight[kZ + i], usual[kZ + i], 1e-12);
}

/// The adjoint of min 1/2 z_0^2 without constraints: z_1 is free.
std::vector<double> adjoint_of_a_free_variable(double g_0, double g_1) {
  Batch batch;
  batch.size = 1, batch.dims.n = 2, batch.Q = {1, 0, 0, 0}, batch.q = {0, 0};
  AdjointInput<double> input;
  input.g_z = {{g_0, g_1}}, input.g_nu = {{}}, input.g_lam = {{}}, input.active = {{}};
  input.live = {true};
  return run_adjoint<double>(support::SerialLaunch{}, batch, input)[0];
}

TEST(Info, SaysWhereACotangentAsksForWhatNothingDetermines) {
  const auto regular = adjoint_of_a_free_variable(2, 0);
  EXPECT_EQ(regular.back(), 0);
  EXPECT_NEAR(regular[0], -2, 1e-14);
  const auto singular = adjoint_of_a_free_variable(2, 3);
  EXPECT_EQ(singular.back(), 1);
  EXPECT_NEAR(singular[0], -2, 1e-5);
  EXPECT_NEAR(singular[1], 0, 1e-4) << "the least of all d";
}

}  // namespace
}  // namespace torchqp::qp
