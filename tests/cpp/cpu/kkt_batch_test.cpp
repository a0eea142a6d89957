// Linearised KKT solves: residuals in long double, derivatives against differences of solutions,
// and the same independence of ranges and company as solve_batch.
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "cpu/systems.hpp"

namespace torchqp::cpu {
namespace {

using support::Problems;
using support::same_bits;

template <class T>
class KktBatchSolve : public ::testing::Test {};
using Elements = ::testing::Types<float, double>;
TYPED_TEST_SUITE(KktBatchSolve, Elements);

TYPED_TEST(KktBatchSolve, TheSystemIsSolvedWithAndWithoutAFactor) {
  using T = TypeParam;
  for (const support::Family& family : support::families()) {
    Systems<T> systems(support::random_batch<T>(family, 20, 51), 5);
    for (bool with_factor : {false, true}) {
      systems.solve(with_factor);
      for (int64_t i = 0; i < systems.batch.size; ++i) {
        bool inactive_zero = false;
        EXPECT_LE(systems.residual(i, &inactive_zero), 100 * std::numeric_limits<T>::epsilon())
            << family.name << ", member " << i << (with_factor ? ", factor" : "");
        EXPECT_TRUE(inactive_zero) << family.name << ", member " << i;
      }
    }
  }
}

TYPED_TEST(KktBatchSolve, IsSelfAdjoint) {
  using T = TypeParam;
  for (const support::Family& family : support::families()) {
    Systems<T> one(support::random_batch<T>(family, 6, 52), 6);
    Systems<T> other = one;
    for (std::vector<T>* g : {&other.g_z, &other.g_nu, &other.g_lam, &other.g_bound})
      std::reverse(g->begin(), g->end());
    one.solve(true), other.solve(true);
    for (int64_t i = 0; i < 6; ++i) {
      long double left = 0, right = 0, size = 0;
      const auto pair = [&](const std::vector<T>& d, const std::vector<T>& e,
                            const std::vector<T>& g, const std::vector<T>& h, int64_t length) {
        for (int64_t k = i * length; k < (i + 1) * length; ++k) {
          left += (long double)d[k] * h[k];
          right += (long double)e[k] * g[k];
          size += std::abs((long double)d[k] * h[k]) + std::abs((long double)e[k] * g[k]);
        }
      };
      const int n = family.n;
      pair(one.d_z, other.d_z, one.g_z, other.g_z, n);
      pair(one.d_nu, other.d_nu, one.g_nu, other.g_nu, family.p);
      pair(one.d_lam, other.d_lam, one.g_lam, other.g_lam, family.m);
      pair(one.d_bound, other.d_bound, one.g_bound, other.g_bound, one.dims.bounds() ? n : 0);
      EXPECT_NEAR(left / size, right / size, sizeof(T) == 8 ? 1e-10 : 2e-3)
          << family.name << ", member " << i;
    }
  }
}

TEST(KktBatchDerivative, AgreesWithDifferencesOfSolutions) {
  int compared = 0;
  for (const support::Family& family : support::families()) {
    const QpBatch<double> batch = support::random_batch<double>(family, 8, 53);
    Systems<double> systems(batch, 7);
    // The tangent for dq = g_z, db = -g_nu; the sides stay.
    std::fill(systems.g_lam.begin(), systems.g_lam.end(), 0.0);
    std::fill(systems.g_bound.begin(), systems.g_bound.end(), 0.0);
    systems.solve(true);
    const double step = 1e-6;
    const auto moved = [&](double by) {
      QpBatch<double> other = batch;
      for (size_t k = 0; k < other.q.size(); ++k) other.q[k] += by * systems.g_z[k];
      for (size_t k = 0; k < other.b.size(); ++k) other.b[k] -= by * systems.g_nu[k];
      return solve_all(other, default_settings<double>());
    };
    const QpSolutions<double> ahead = moved(step), behind = moved(-step);
    for (int64_t i = 0; i < batch.size; ++i) {
      const int8_t* before = systems.active.data() + i * systems.sides();
      if (!std::equal(before, before + systems.sides(), ahead.active(i)) ||
          !std::equal(before, before + systems.sides(), behind.active(i)))
        continue;  // a kink within the step: no derivative to compare with
      ++compared;
      double size = 1;
      for (int j = 0; j < family.n; ++j)
        size = std::max(size, std::abs(systems.d_z[i * family.n + j]));
      for (int j = 0; j < family.n; ++j)
        EXPECT_NEAR((ahead.z(i)[j] - behind.z(i)[j]) / (2 * step) / size,
                    systems.d_z[i * family.n + j] / size, 1e-5)
            << family.name << ", member " << i;
    }
  }
  EXPECT_GE(compared, 100) << "of " << 8 * support::families().size();
}

/// Solved and failed members in turn.
template <class T>
QpBatch<T> mixed_batch(bool bounds, int64_t size) {
  std::vector<int64_t> members;
  for (int64_t i = 0; i < size; ++i) members.push_back(i % 2 == 0 ? 0 : (i / 2 + 1) % 8);
  return support::troubled_batch<T>(bounds).batch.pick(members);
}

TYPED_TEST(KktBatchSolve, FailedMembersGiveExactlyZero) {
  using T = TypeParam;
  for (bool bounds : {false, true})
    for (bool with_factor : {false, true}) {
      Systems<T> systems(mixed_batch<T>(bounds, 16), 8);
      systems.solve(with_factor);
      for (int64_t i = 0; i < 16; ++i)
        for (double x : systems.answer(i)) {
          if (is_solved(static_cast<Status>(systems.status[i]))) {
            EXPECT_TRUE(std::isfinite(x));
          } else {
            EXPECT_EQ(x, 0);
          }
        }
    }
}

TYPED_TEST(KktBatchSolve, AMemberHasTheSameBitsInEveryRangeAndWorkspace) {
  using T = TypeParam;
  const int64_t width = pack_width<T>(), size = 2 * width + 3;
  for (bool bounds : {false, true})
    for (bool with_factor : {false, true}) {
      Systems<T> whole(mixed_batch<T>(bounds, size), 9);
      Systems<T> pieces = whole;
      whole.solve(with_factor);
      for (int64_t piece : {int64_t{1}, int64_t{3}, width, width + 1}) {
        const KktBatch<T> system = pieces.view(with_factor);
        for (int64_t begin = 0; begin < size; begin += piece)
          pieces.solve_range(system, begin, std::min(begin + piece, size),
                             static_cast<unsigned char>(0x3F + piece));
        for (int64_t i = 0; i < size; ++i)
          EXPECT_TRUE(same_bits(pieces.answer(i), whole.answer(i)))
              << "member " << i << " in ranges of " << piece;
      }
    }
}

TYPED_TEST(KktBatchSolve, OnlyTheRangeIsWritten) {
  using T = TypeParam;
  const int64_t size = 2 * pack_width<T>();
  Systems<T> systems(mixed_batch<T>(true, size), 10);
  systems.solve_range(systems.view(true), 1, size - 1);
  for (int64_t i = 0; i < size; ++i)
    for (double x : systems.answer(i)) EXPECT_EQ(std::isnan(x), i == 0 || i == size - 1) << i;
}

TYPED_TEST(KktBatchSolve, AnAbsentRightHandSideIsZero) {
  using T = TypeParam;
  const support::Family& family = support::families().at(11);
  Systems<T> systems(support::random_batch<T>(family, 5, 54), 11);
  Systems<T> zeros = systems;
  for (std::vector<T>* g : {&zeros.g_nu, &zeros.g_lam, &zeros.g_bound})
    std::fill(g->begin(), g->end(), T(0));
  zeros.solve(true);
  KktBatch<T> system = systems.view(true);
  system.g_nu = system.g_lam = system.g_bound = {};
  systems.solve_range(system, 0, 5);
  for (int64_t i = 0; i < 5; ++i) EXPECT_TRUE(same_bits(systems.answer(i), zeros.answer(i))) << i;
}

TYPED_TEST(KktBatchSolve, TwinActiveRowsGiveAFiniteAnswer) {
  using T = TypeParam;
  for (bool bounds : {false, true}) {
    // Two rows that are the same and both hold: the system is singular, but z is determined.
    const support::Family family = {"twins", 4,      3,     0,     false, true,
                                    bounds,  bounds, false, false, 0,     0};
    QpBatch<T> batch = support::random_batch<T>(family, 6, 55);
    const int n = family.n, m = family.m;
    for (int64_t i = 0; i < batch.size; ++i) {
      std::copy_n(batch.G.begin() + i * m * n, n, batch.G.begin() + (i * m + 1) * n);
      batch.h[i * m + 1] = batch.h[i * m];
    }
    Systems<T> systems(batch, 12);
    for (int64_t i = 0; i < batch.size; ++i) {
      systems.active[i * systems.sides()] = systems.active[i * systems.sides() + 1] = 1;
      systems.g_lam[i * m + 1] = systems.g_lam[i * m];  // consistent
    }
    for (bool with_factor : {false, true}) {
      systems.solve(with_factor);
      for (int64_t i = 0; i < batch.size; ++i) {
        for (double x : systems.answer(i)) ASSERT_TRUE(std::isfinite(x)) << i;
        if (with_factor) continue;  // saved for another active set
        bool inactive_zero = false;
        EXPECT_LE(systems.residual(i, &inactive_zero), sizeof(T) == 8 ? 1e-8 : 1e-3) << i;
        EXPECT_TRUE(inactive_zero);
      }
    }
  }
}

}  // namespace
}  // namespace torchqp::cpu
