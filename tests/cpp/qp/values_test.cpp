// Values of whole solves and of their derivatives, one problem at a time in double precision, judged
// in long double. Of all that the batches of tests/cpp/cpu are put to this is what compiles in
// seconds.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "qp/run_adjoint.hpp"
#include "qp/saved_factor.hpp"

namespace torchqp::qp {
namespace {

using support::Family;
using Batch = support::QpBatch<double>;
using Real = long double;

constexpr int kMembers = 6;

int sides_of(const Dims& dims) {
  return dims.m + (dims.bounds() ? dims.n : 0);
}

/// Outputs of run_solver as judge wants them.
support::QpSolutions<double> as_solutions(const Dims& dims, const std::vector<double>& out) {
  support::QpSolutions<double> solutions(dims, 1, false);
  const SolutionBatch<double> to = solutions.view();
  const double *z = out.data() + kZ, *nu = z + dims.n, *lam = nu + dims.p;
  std::copy_n(z, dims.n, to.z), std::copy_n(nu, dims.p, to.nu), std::copy_n(lam, dims.m, to.lam);
  for (int i = 0; i < dims.n; ++i) {
    if (to.lam_ub != nullptr) to.lam_ub[i] = std::max(lam[dims.m + i], 0.0);
    if (to.lam_lb != nullptr) to.lam_lb[i] = std::max(-lam[dims.m + i], 0.0);
  }
  return solutions;
}

TEST(Values, SolutionsMeetTheConditionsOnTheCallersData) {
  for (const Family& family : support::families()) {
    const Batch all = support::random_batch<double>(family, kMembers, 31);
    for (int64_t k = 0; k < kMembers; ++k) {
      const Batch batch = all.pick({k});
      const Dims& dims = batch.dims;
      const auto out =
          run_solver<double>(support::SerialLaunch{}, batch, {default_settings<double>()})[0];
      ASSERT_EQ(out[kStatus], 0) << family.name << ", member " << k;
      if (has_single_row(Shape::of<SerialTeam, double>(dims))) {
        ASSERT_EQ(out[kIterations], 0) << family.name << ", member " << k << ": found directly";
      }
      const support::Verdict verdict = support::judge(batch, as_solutions(dims, out), 0);
      for (Real residual : verdict.relative())
        ASSERT_LE(residual, 1e-11) << family.name << ", member " << k;
      ASSERT_LE(verdict.complementarity, 1e-9) << family.name << ", member " << k;
      // A multiplier pushes on the side that is named, and the slack is that of the upper one.
      const double *z = out.data() + kZ, *lam = z + dims.n + dims.p;
      const double *active = lam + sides_of(dims), *slack = active + sides_of(dims);
      for (int i = 0; i < sides_of(dims); ++i)
        ASSERT_GE(active[i] * lam[i], std::abs(lam[i])) << family.name << ", member " << k;
      for (int i = 0; i < dims.m && !batch.h.empty(); ++i) {
        if (std::abs(batch.h[i]) >= kInfinity) continue;
        Real expected = batch.h[i];
        for (int j = 0; j < dims.n; ++j) expected -= Real(batch.G[i * dims.n + j]) * z[j];
        ASSERT_NEAR(slack[i], expected, 1e-10) << family.name << ", member " << k;
      }
    }
  }
}

/// Largest entry of K d + g over the system, relative to the largest term in it; infinite where d is
/// not zero on a side that does not hold.
Real residual(const Batch& batch, const AdjointInput<double>& input, const std::vector<double>& d) {
  const int n = batch.dims.n, m = batch.dims.m, p = batch.dims.p;
  const double *nu = d.data() + n, *lam = nu + p;
  Real error = 0, size = 0;
  const auto row = [&](std::initializer_list<Real> terms) {
    Real sum = 0;
    for (Real term : terms) sum += term, size = std::max(size, std::abs(term));
    if (!(std::abs(sum) <= error)) error = std::abs(sum);
  };
  const auto column = [](const double* a, int j) { return a == nullptr ? a : a + j; };
  const auto product = [](const double* a, const double* x, int count, int stride) {
    Real sum = 0;
    for (int k = 0; k < count; ++k) sum += Real(a[k * stride]) * x[k];
    return sum;
  };
  const double *Q = batch.Q.data(), *G = batch.G.data(), *A = batch.A.data();
  for (int i = 0; i < n; ++i) {
    Real Qz = 0;
    for (int j = 0; j < n && !batch.dims.diagonal; ++j)
      Qz += (Real(Q[i * n + j]) + Q[j * n + i]) / 2 * d[j];
    if (batch.dims.diagonal) Qz = Real(Q[i]) * d[i];
    row({Qz, product(column(A, i), nu, p, n), product(column(G, i), lam, m, n),
         batch.dims.bounds() ? Real(lam[m + i]) : 0, Real(input.g_z[0][i])});
  }
  for (int i = 0; i < p; ++i) row({product(A + i * n, d.data(), n, 1), Real(input.g_nu[0][i])});
  for (int i = 0; i < sides_of(batch.dims); ++i) {
    if (input.active[0][i] == 0) {
      if (lam[i] != 0) return INFINITY;
    } else {
      row({i < m ? product(G + i * n, d.data(), n, 1) : Real(d[i - m]), Real(input.g_lam[0][i])});
    }
  }
  return error / size;
}

TEST(Values, DerivativesSolveTheSystemOfTheSidesThatHold) {
  for (const Family& family : support::families()) {
    const Batch all = support::random_batch<double>(family, kMembers, 32);
    for (int64_t k = 0; k < kMembers; ++k) {
      const Batch batch = all.pick({k});
      const auto solved =
          run_solver<double>(support::SerialLaunch{}, batch, {default_settings<double>()});
      const AdjointInput<double> input = adjoint_input<double>(batch.dims, solved, 33);
      const auto d = run_adjoint<double>(support::SerialLaunch{}, batch, input)[0];
      ASSERT_LE(residual(batch, input, d), 100 * std::numeric_limits<double>::epsilon())
          << family.name << ", member " << k;
    }
  }
}

TEST(Values, AVariableIsPutOnABoundOnlyWhereThatHolds) {
  // Eight roundings of the large variable, 1.8e-7, are more than the second one's distance.
  Batch batch;
  batch.dims = {.n = 3, .lb = true};
  batch.size = 1;
  batch.Q = {1, 0, 0, 0, 1, 0, 0, 0, 1};
  batch.q = {-1e8, -1e-7, 1};
  batch.lb = {0, 0, 0};
  const auto out =
      run_solver<double>(support::SerialLaunch{}, batch, {default_settings<double>()})[0];
  EXPECT_EQ(out[kStatus], 0);
  EXPECT_NEAR(out[kZ + 1], 1e-7, 1e-11);
  EXPECT_EQ(out[kZ + 2], 0);
}

TEST(Values, EveryFailureHasItsStatus) {
  for (bool bounds : {false, true}) {
    const auto troubled = support::troubled_batch<double>(bounds);
    for (int64_t k = 0; k < troubled.batch.size; ++k) {
      const auto out = run_solver<double>(support::SerialLaunch{}, troubled.batch.pick({k}),
                                          {default_settings<double>()})[0];
      EXPECT_EQ(out[kStatus], static_cast<int>(troubled.expected[k]))
          << "member " << k << (bounds ? ", bounds" : "");
    }
  }
}

TEST(Values, OneNumberThatIsNotFiniteIsFoundWhereverItStands) {
  const Family family = {"any", 5, 4, 3, false, true, false, false, false, false, 0, 0};
  const Batch batch = support::random_batch<double>(family, 1, 34);
  for (const auto& array : {&Batch::Q, &Batch::q, &Batch::G, &Batch::A, &Batch::b, &Batch::h})
    for (size_t i = 0; i < (batch.*array).size(); ++i) {
      Batch other = batch;
      (other.*array)[i] = std::numeric_limits<double>::quiet_NaN();
      const auto out =
          run_solver<double>(support::SerialLaunch{}, other, {default_settings<double>()})[0];
      EXPECT_EQ(out[kStatus], static_cast<int>(Status::kInvalidInput)) << "entry " << i;
    }
}

TEST(Values, WhereTheLimitComesFirstTheStatusSaysIt) {
  HowToSolve how{default_settings<double>()};
  how.settings.max_iter = 1, how.settings.polish = false;
  const Batch batch = support::random_batch<double>(support::families().at(11), 1, 35);
  const auto out = run_solver<double>(support::SerialLaunch{}, batch, how)[0];
  EXPECT_EQ(out[kStatus], static_cast<int>(Status::kMaxIterations));
  EXPECT_EQ(out[kIterations], 1);
}

TEST(Values, TheKeptFactorIsThatOfTheSidesThatHold) {
  int compared = 0;
  for (const Family& family : support::families()) {
    const Batch batch = support::random_batch<double>(family, 1, 36);
    const Shape shape = Shape::of<SerialTeam, double>(batch.dims);
    if (!prefers_dual(shape)) continue;
    std::vector<double> memory(solver_size<SerialTeam, double>(batch.dims));
    Arena<double> arena{memory.data()};
    Solver<double> solver(shape, default_settings<double>(), arena);
    fill_data(solver.data, batch);
    solve(SerialTeam{}, solver, false, Prepared::kNothing, false, true);
    if (!keeps_factor(solver)) continue;
    const FactorBlocks<double> saved(SerialTeam{}, solver, shape);
    // Q = L L', and K K' = C Q^-1 C' for the rows C of A and of G that hold, unscaled.
    const int n = shape.n, count = static_cast<int>(saved.count);
    std::vector<std::vector<Real>> V(count, std::vector<Real>(n));
    for (int r = 0; r < count; ++r) {
      const int row =
          r < shape.p ? r : static_cast<int>(solver.dual.schur.factor.held.row[r - shape.p]);
      for (int i = 0; i < n; ++i) {
        Real sum = (r < shape.p ? batch.A : batch.G)[row * n + i];
        for (int j = 0; j < i; ++j) sum -= Real(saved.saved_L(i, j)) * V[r][j];
        V[r][i] = sum / saved.saved_L(i, i);
      }
    }
    for (int r = 0; r < count; ++r)
      for (int c = 0; c <= r; ++c, ++compared) {
        Real expected = 0, actual = 0;
        for (int i = 0; i < n; ++i) expected += V[r][i] * V[c][i];
        for (int i = 0; i <= c; ++i) actual += Real(saved.saved_K(r, i)) * saved.saved_K(c, i);
        EXPECT_NEAR(actual, expected, 1e-11 * (1 + std::abs(expected)))
            << family.name << ", entry " << r << ", " << c;
      }
  }
  EXPECT_GE(compared, 40);
}

}  // namespace
}  // namespace torchqp::qp
