// Ranges, tails, strides and statuses of the CPU path; the solutions are judged by support/qp.hpp.
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <string>

#include "cpu/run_batch.hpp"
#include "support/packed.hpp"

namespace torchqp::cpu {
namespace {

using support::QpBatch;
using support::QpSolutions;
using support::same_bits;

template <class T>
class SolveBatch : public ::testing::Test {};
using Elements = ::testing::Types<float, double>;
TYPED_TEST_SUITE(SolveBatch, Elements);

TYPED_TEST(SolveBatch, SolutionsMeetTheTolerancesOnTheCallersData) {
  using T = TypeParam;
  const Settings settings = default_settings<T>();
  for (const support::Family& family : support::families()) {
    const QpBatch<T> batch = support::random_batch<T>(family, 40, 31);
    const QpSolutions<T> solutions = solve_all(batch, settings);
    for (int64_t i = 0; i < batch.size; ++i) {
      ASSERT_EQ(solutions.status(i), Status::kSolved) << family.name << ", member " << i;
      const support::Verdict verdict = support::judge(batch, solutions, i);
      EXPECT_LE(verdict.merit(settings.eps_abs, settings.eps_rel), 1)
          << family.name << ", member " << i;
      const std::vector<long double> relative = verdict.relative();
      for (int k = 0; k < 4; ++k)  // what is reported is what there is, up to rounding
        EXPECT_NEAR(solutions.residuals(i)[k], relative[k], 50 * std::numeric_limits<T>::epsilon())
            << family.name << ", member " << i << ", residual " << k;
    }
  }
}

TYPED_TEST(SolveBatch, PolishedSolutionsAreSharp) {
  using T = TypeParam;
  for (const support::Family& family : support::families()) {
    const QpBatch<T> batch = support::random_batch<T>(family, 20, 32);
    const QpSolutions<T> solutions = solve_all(batch, default_settings<T>());
    std::vector<long double> worst;
    for (int64_t i = 0; i < batch.size; ++i) {
      const support::Verdict verdict = support::judge(batch, solutions, i);
      worst.push_back(verdict.merit(1, 1));
    }
    // An interior point alone ends near its tolerance, 1e-8 or 1e-4.
    std::sort(worst.begin(), worst.end());
    EXPECT_LE(worst[worst.size() / 2], 100 * std::numeric_limits<T>::epsilon()) << family.name;
  }
}

TYPED_TEST(SolveBatch, ActiveMarksTheSidesThatHold) {
  using T = TypeParam;
  const T tolerance = sizeof(T) == 8 ? T(1e-6) : T(1e-2);
  for (const support::Family& family : support::families()) {
    const QpBatch<T> batch = support::random_batch<T>(family, 12, 33);
    const QpSolutions<T> solutions = solve_all(batch, default_settings<T>());
    const Dims& dims = batch.dims;
    for (int64_t i = 0; i < batch.size; ++i) {
      const int8_t* active = solutions.active(i);
      for (int r = 0; r < dims.m; ++r) {
        double value = 0;
        for (int j = 0; j < dims.n; ++j)
          value += double(batch.G[(i * dims.m + r) * dims.n + j]) * solutions.z(i)[j];
        const T lam = solutions.lam(i)[r];
        if (active[r] == 0) {
          EXPECT_EQ(lam, 0) << family.name;
        } else {
          const std::vector<T>& side = active[r] == 1 ? batch.h : batch.h_lower;
          EXPECT_NEAR(value, side[i * dims.m + r], tolerance) << family.name;
          EXPECT_GE(active[r] * lam, 0) << family.name;
        }
      }
      for (int j = 0; dims.bounds() && j < dims.n; ++j) {
        const T to_ub = dims.ub ? solutions.lam_ub(i)[j] : T(0);
        const T to_lb = dims.lb ? solutions.lam_lb(i)[j] : T(0);
        EXPECT_GE(to_ub, 0);
        EXPECT_GE(to_lb, 0);
        const int8_t side = active[dims.m + j];
        if (side == 0) {
          EXPECT_EQ(to_ub - to_lb, 0) << family.name;
        } else {
          const std::vector<T>& bound = side == 1 ? batch.ub : batch.lb;
          EXPECT_NEAR(solutions.z(i)[j], bound[i * dims.n + j], tolerance) << family.name;
          EXPECT_EQ(side == 1 ? to_lb : to_ub, 0) << family.name;
        }
      }
    }
  }
}

/// Members of one family, troubled ones among them.
template <class T>
QpBatch<T> mixed_batch(bool bounds, int64_t size) {
  const QpBatch<T> troubled = support::troubled_batch<T>(bounds).batch;
  std::vector<int64_t> members;
  for (int64_t i = 0; i < size; ++i) members.push_back(i % 3 == 2 ? (i / 3 + 1) % 8 : 0);
  QpBatch<T> batch = troubled.pick(members);
  for (int64_t i = 0; i < size; ++i)  // so that no two are the same
    batch.q[i * batch.dims.n] += static_cast<T>(0.01) * static_cast<T>(i);
  return batch;
}

TYPED_TEST(SolveBatch, AMemberHasTheSameBitsInEveryRange) {
  using T = TypeParam;
  const int64_t width = pack_width<T>(), size = 2 * width + 3;
  for (bool bounds : {false, true}) {
    const QpBatch<T> batch = mixed_batch<T>(bounds, size);
    const Settings settings = default_settings<T>();
    const QpSolutions<T> whole = solve_all(batch, settings, true);
    for (int64_t piece : {int64_t{1}, int64_t{2}, int64_t{3}, width - 1, width, width + 1}) {
      if (piece < 1) continue;
      QpSolutions<T> pieces(batch.dims, size, true);
      for (int64_t begin = 0; begin < size; begin += piece)
        solve_members(batch.view(), settings, pieces, begin, std::min(begin + piece, size));
      for (int64_t i = 0; i < size; ++i)
        EXPECT_TRUE(same_bits(pieces.member(i), whole.member(i)))
            << "member " << i << " in ranges of " << piece << (bounds ? ", bounds" : ", rows");
    }
  }
}

/// The batch in which member i has the matrices of member i % period.
template <class T>
QpBatch<T> repeat_matrices(QpBatch<T> batch, int64_t period) {
  const auto repeat = [&](std::vector<T>& array) {
    const int64_t length = static_cast<int64_t>(array.size()) / batch.size;
    for (int64_t i = period; i < batch.size; ++i)
      std::copy_n(array.begin() + i % period * length, length, array.begin() + i * length);
  };
  repeat(batch.Q), repeat(batch.G), repeat(batch.A);
  return batch;
}

TYPED_TEST(SolveBatch, RepeatedMatricesChangeNoBit) {
  using T = TypeParam;
  const int64_t width = pack_width<T>();
  for (const support::Family& family : support::families()) {
    for (int64_t period : {int64_t{1}, int64_t{2}, width + 3}) {
      const int64_t size = 2 * (width + 3) * 2;
      QpBatch<T> batch = repeat_matrices(support::random_batch<T>(family, size, 36), period);
      const QpSolutions<T> copied = solve_all(batch, default_settings<T>(), true);
      // Then the same from the first `period` matrices, and once more from where that ended.
      ProblemBatch<T> shared = batch.view();
      for (StridedArray<T>* array : {&shared.Q, &shared.G, &shared.A}) {
        if (array->data == nullptr) continue;
        array->batch.sizes[0] = period;
        if (period == 1) array->batch.ndim = 0;
      }
      QpSolutions<T> solutions(batch.dims, size, true);
      solve_members(shared, default_settings<T>(), solutions, 0, size);
      for (int64_t i = 0; i < size; ++i)
        EXPECT_TRUE(same_bits(solutions.member(i), copied.member(i)))
            << family.name << ", period " << period << ", member " << i;
    }
  }
}

TYPED_TEST(SolveBatch, AWarmStartHasTheSameBitsInAnyCompany) {
  using T = TypeParam;
  const int64_t size = 2 * (pack_width<T>() + 3);
  for (const support::Family& family : support::families()) {
    for (int64_t period : {size / 2, size}) {
      QpBatch<T> batch = repeat_matrices(support::random_batch<T>(family, size, 38), period);
      const QpSolutions<T> start = solve_all(batch, default_settings<T>());
      const Dims& dims = batch.dims;
      const auto copy = [&](const auto& of, int length) {
        std::vector<T> all;
        for (int64_t i = 0; i < size && length > 0; ++i) {
          const T* from = of(i);
          all.insert(all.end(), from, from + length);
        }
        return all;
      };
      batch.z0 = copy([&](int64_t i) { return start.z(i); }, dims.n);
      batch.nu0 = copy([&](int64_t i) { return start.nu(i); }, dims.p);
      batch.lam0 = copy([&](int64_t i) { return start.lam(i); }, dims.m);
      batch.lam_lb0 = copy([&](int64_t i) { return start.lam_lb(i); }, dims.lb ? dims.n : 0);
      batch.lam_ub0 = copy([&](int64_t i) { return start.lam_ub(i); }, dims.ub ? dims.n : 0);
      // From starts that are right to starts that are far off, side by side.
      for (int64_t i = 0; i < size; ++i)
        for (int j = 0; j < dims.n; ++j)
          batch.q[i * dims.n + j] += static_cast<T>((i % 5) * (i % 5) * 0.05 * std::cos(i + 2 * j));
      ProblemBatch<T> shared = batch.view();
      for (StridedArray<T>* array : {&shared.Q, &shared.G, &shared.A})
        if (array->data != nullptr) array->batch.sizes[0] = period;
      QpSolutions<T> together(dims, size, true);
      solve_members(shared, default_settings<T>(), together, 0, size);
      for (int64_t i = 0; i < size; ++i) {
        const QpSolutions<T> alone = solve_all(batch.pick({i}), default_settings<T>(), true);
        EXPECT_TRUE(same_bits(together.member(i), alone.member(0)))
            << family.name << ", period " << period << ", member " << i;
      }
    }
  }
}

TYPED_TEST(SolveBatch, SlackIsTheDistanceToTheUpperSide) {
  using T = TypeParam;
  for (const support::Family& family : support::families()) {
    const QpBatch<T> batch = support::random_batch<T>(family, 9, 37);
    const QpSolutions<T> solutions = solve_all(batch, default_settings<T>());
    const int n = batch.dims.n, m = batch.dims.m;
    for (int64_t i = 0; i < batch.size; ++i) {
      for (int r = 0; r < m; ++r) {
        const T bound = batch.h.empty() ? T(kInfinity) : batch.h[i * m + r];
        double value = 0, size = 1 + std::abs(double(bound));
        for (int j = 0; j < n; ++j) {
          const double term = double(batch.G[(i * m + r) * n + j]) * solutions.z(i)[j];
          value += term, size += std::abs(term);
        }
        if (bound >= T(kInfinity)) {
          EXPECT_EQ(solutions.slack(i)[r], std::numeric_limits<T>::infinity()) << family.name;
        } else {
          EXPECT_NEAR(solutions.slack(i)[r], bound - value,
                      50 * std::numeric_limits<T>::epsilon() * size)
              << family.name << ", member " << i << ", row " << r;
        }
      }
    }
  }
}

TYPED_TEST(SolveBatch, AMemberHasTheSameBitsInAnyCompany) {
  using T = TypeParam;
  for (const support::Family& family : support::families()) {
    const int64_t size = 3 * pack_width<T>();
    const QpBatch<T> batch = support::random_batch<T>(family, size, 34);
    std::vector<int64_t> backwards(size);
    std::iota(backwards.rbegin(), backwards.rend(), int64_t{0});
    const QpSolutions<T> forward = solve_all(batch, default_settings<T>(), true);
    const QpSolutions<T> reverse = solve_all(batch.pick(backwards), default_settings<T>(), true);
    for (int64_t i = 0; i < size; ++i) {
      EXPECT_TRUE(same_bits(forward.member(i), reverse.member(size - 1 - i))) << family.name;
      const QpSolutions<T> alone = solve_all(batch.pick({i}), default_settings<T>(), true);
      EXPECT_TRUE(same_bits(forward.member(i), alone.member(0))) << family.name;
    }
  }
}

TYPED_TEST(SolveBatch, MembersThatTakeDifferentFormsShareAPack) {
  using T = TypeParam;
  const support::Family& family = support::families().at(6);  // rows and equalities
  const int64_t size = 4 * pack_width<T>();
  QpBatch<T> batch = support::random_batch<T>(family, size, 41);
  const int64_t entries = int64_t{family.n} * family.n;
  for (int64_t i = 0; i < size; i += 3)  // linear programs: Q does not let the dual form start
    std::fill_n(batch.Q.begin() + i * entries, entries, T(0));
  const QpSolutions<T> together = solve_all(batch, default_settings<T>(), true);
  for (int64_t i = 0; i < size; ++i) {
    const QpSolutions<T> alone = solve_all(batch.pick({i}), default_settings<T>(), true);
    EXPECT_TRUE(same_bits(together.member(i), alone.member(0))) << i;
    if (i % 3 != 0) {
      EXPECT_EQ(together.status(i), Status::kSolved) << i;
    }
  }
}

TYPED_TEST(SolveBatch, OnlyTheRangeIsWritten) {
  using T = TypeParam;
  const int64_t size = 2 * pack_width<T>() + 1;
  const QpBatch<T> batch = mixed_batch<T>(true, size);
  for (int64_t begin : {int64_t{0}, int64_t{1}, size / 2})
    for (int64_t end : {begin, begin + 1, size - 1}) {
      QpSolutions<T> solutions(batch.dims, size, true);
      solve_members(batch.view(), default_settings<T>(), solutions, begin, end);
      for (int64_t i = 0; i < size; ++i)
        EXPECT_EQ(solutions.untouched(i), i < begin || i >= end)
            << i << ": " << begin << ".." << end;
    }
}

TYPED_TEST(SolveBatch, WhatTheWorkspaceHeldDoesNotMatter) {
  using T = TypeParam;
  for (bool bounds : {false, true}) {
    const QpBatch<T> batch = mixed_batch<T>(bounds, pack_width<T>() + 1);
    const QpSolutions<T> reference = solve_all(batch, default_settings<T>(), true);
    for (unsigned char fill : {0x00, 0xFF, 0x3F}) {  // zeros, NaNs, numbers near one
      QpSolutions<T> solutions(batch.dims, batch.size, true);
      solve_members(batch.view(), default_settings<T>(), solutions, 0, batch.size, fill);
      for (int64_t i = 0; i < batch.size; ++i)
        EXPECT_TRUE(same_bits(solutions.member(i), reference.member(i))) << i;
    }
  }
}

TYPED_TEST(SolveBatch, EveryFailureHasItsStatusAndIsNaN) {
  using T = TypeParam;
  for (bool bounds : {false, true}) {
    const auto troubled = support::troubled_batch<T>(bounds);
    const QpSolutions<T> solutions = solve_all(troubled.batch, default_settings<T>(), true);
    const Dims& dims = troubled.batch.dims;
    for (int64_t i = 0; i < troubled.batch.size; ++i) {
      ASSERT_EQ(solutions.status(i), troubled.expected[i]) << "member " << i << bounds;
      const bool solved = is_solved(solutions.status(i));
      for (int j = 0; j < dims.n; ++j) {
        EXPECT_EQ(std::isfinite(solutions.z(i)[j]), solved);
        EXPECT_EQ(std::isnan(solutions.z(i)[j]), !solved);
        if (!bounds) continue;
        EXPECT_EQ(std::isnan(solutions.lam_lb(i)[j]), !solved);
        EXPECT_EQ(std::isnan(solutions.lam_ub(i)[j]), !solved);
      }
      for (int j = 0; j < dims.p; ++j) EXPECT_EQ(std::isnan(solutions.nu(i)[j]), !solved);
      for (int j = 0; j < dims.m; ++j) EXPECT_EQ(std::isnan(solutions.lam(i)[j]), !solved);
      for (int64_t j = 0; j < solutions.active_size() && !solved; ++j)
        EXPECT_EQ(solutions.active(i)[j], 0);
      for (int64_t j = 0; j < factor_size(dims) && !solved; ++j)
        EXPECT_EQ(solutions.factor(i)[j], 0);
    }
  }
}

TYPED_TEST(SolveBatch, TheIterationLimitIsAStatus) {
  using T = TypeParam;
  const QpBatch<T> batch = support::random_batch<T>(support::families().at(4), 5, 35);
  Settings settings = default_settings<T>();
  settings.max_iter = 1;
  settings.eps_abs = settings.eps_rel = 1e-7;  // out of reach of one iteration, inaccurately too
  settings.polish = false;
  const QpSolutions<T> nan = solve_all(batch, settings);
  settings.best_iterate = true;
  const QpSolutions<T> best = solve_all(batch, settings);
  for (int64_t i = 0; i < batch.size; ++i) {
    EXPECT_EQ(nan.status(i), Status::kMaxIterations) << i;
    EXPECT_EQ(best.status(i), Status::kMaxIterations) << i;
    for (int j = 0; j < batch.dims.n; ++j) {
      EXPECT_TRUE(std::isnan(nan.z(i)[j]));
      EXPECT_TRUE(std::isfinite(best.z(i)[j]));
    }
  }
}

TYPED_TEST(SolveBatch, AnyStridesGiveTheBitsOfContiguousData) {
  using T = TypeParam;
  const support::Family family = {"strides", 5,    4,     2,     true, true,
                                  true,      true, false, false, 0.2,  0.1};
  const int64_t size = pack_width<T>() + 2;
  const QpBatch<T> batch = support::random_batch<T>(family, size, 36);
  const QpSolutions<T> contiguous = solve_all(batch, default_settings<T>());
  ProblemBatch<T> view = batch.view();

  // Matrices by columns, vectors with gaps of three, the batch last.
  std::vector<std::vector<T>> storage;
  const auto spread = [&](StridedArray<T>& array, int rows, int cols) {
    storage.emplace_back(3 * size * rows * cols, std::numeric_limits<T>::quiet_NaN());
    std::vector<T>& to = storage.back();
    for (int64_t b = 0; b < size; ++b)
      for (int i = 0; i < rows; ++i)
        for (int j = 0; j < cols; ++j)
          to[3 * ((int64_t{j} * rows + i) * size + b)] =
              array.data[array.batch.offset(b) + i * array.row + j * array.col];
    array.data = to.data();
    array.row = 3 * size;
    array.col = 3 * size * rows;
    array.batch.strides[0] = 3;
  };
  const int n = family.n, m = family.m, p = family.p;
  spread(view.Q, n, n), spread(view.q, n, 1), spread(view.G, m, n), spread(view.h, m, 1);
  spread(view.h_lower, m, 1), spread(view.A, p, n), spread(view.b, p, 1);
  spread(view.lb, n, 1), spread(view.ub, n, 1);
  QpSolutions<T> solutions(batch.dims, size, false);
  solve_members(view, default_settings<T>(), solutions, 0, size);
  for (int64_t i = 0; i < size; ++i)
    EXPECT_TRUE(same_bits(solutions.member(i), contiguous.member(i))) << i;
}

TYPED_TEST(SolveBatch, BroadcastDimensionsGiveTheBitsOfCopies) {
  using T = TypeParam;
  // A batch of [3, 4]: Q and A shared by all, G along the second dimension, q along the first.
  const support::Family family = support::families().at(4);
  const QpBatch<T> few = support::random_batch<T>(family, 4, 37);
  QpBatch<T> copies = few.pick({0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0});
  const auto fill = [&](std::vector<T>& to, const std::vector<T>& from, auto member_of) {
    const int64_t length = static_cast<int64_t>(from.size()) / few.size;
    for (int64_t i = 0; i < 12; ++i)
      std::copy_n(from.begin() + member_of(i) * length, length, to.begin() + i * length);
  };
  fill(copies.G, few.G, [](int64_t i) { return i % 4; });
  fill(copies.h, few.h, [](int64_t i) { return i % 4; });
  fill(copies.q, few.q, [](int64_t i) { return i / 4; });
  for (T& side : copies.h) side += 10;  // feasible for every A and G
  QpBatch<T> shared = few;
  for (T& side : shared.h) side += 10;

  ProblemBatch<T> view = shared.view();
  view.size = 12;
  const auto layout = [](StridedArray<T>& array, int64_t first, int64_t second) {
    array.batch.ndim = 2;
    array.batch.sizes[0] = 3, array.batch.sizes[1] = 4;
    array.batch.strides[0] = first, array.batch.strides[1] = second;
  };
  const int n = family.n, m = family.m;
  layout(view.Q, 0, 0), layout(view.A, 0, 0), layout(view.b, 0, 0);
  layout(view.G, 0, m * n), layout(view.h, 0, m), layout(view.q, n, 0);
  QpSolutions<T> solutions(few.dims, 12, false);
  solve_members(view, default_settings<T>(), solutions, 0, 12);
  const QpSolutions<T> expected = solve_all(copies, default_settings<T>());
  for (int64_t i = 0; i < 12; ++i) {
    EXPECT_EQ(solutions.status(i), Status::kSolved);
    EXPECT_TRUE(same_bits(solutions.member(i), expected.member(i))) << i;
  }
}

TYPED_TEST(SolveBatch, OnlyTheSymmetricPartOfQCounts) {
  using T = TypeParam;
  QpBatch<T> batch = support::random_batch<T>(support::families().at(3), 3, 38);
  const QpSolutions<T> symmetric = solve_all(batch, default_settings<T>());
  const int n = batch.dims.n;
  for (int64_t i = 0; i < batch.size; ++i)  // a skew part with entries that add exactly
    for (int r = 0; r < n; ++r)
      for (int c = 0; c < r; ++c) {
        T& below = batch.Q[(i * n + r) * n + c];
        T& above = batch.Q[(i * n + c) * n + r];
        below = 2 * below, above = 0;
      }
  const QpSolutions<T> skewed = solve_all(batch, default_settings<T>());
  for (int64_t i = 0; i < batch.size; ++i)
    EXPECT_TRUE(same_bits(skewed.member(i), symmetric.member(i))) << i;
}

TYPED_TEST(SolveBatch, SidesFromTheLimitOnAreInfinite) {
  using T = TypeParam;
  QpBatch<T> batch = support::random_batch<T>(support::families().at(11), 6, 39);
  QpBatch<T> large = batch;
  for (std::vector<T>* sides : {&large.h, &large.h_lower, &large.lb, &large.ub})
    for (T& side : *sides)
      if (std::isinf(side)) side = side > 0 ? T(1e20) : T(-3e20);
  const QpSolutions<T> expected = solve_all(batch, default_settings<T>());
  const QpSolutions<T> solutions = solve_all(large, default_settings<T>());
  for (int64_t i = 0; i < batch.size; ++i)
    EXPECT_TRUE(same_bits(solutions.member(i), expected.member(i))) << i;
}

TYPED_TEST(SolveBatch, AWarmStartFromTheSolutionIsQuick) {
  using T = TypeParam;
  for (const support::Family& family : support::families()) {
    QpBatch<T> batch = support::random_batch<T>(family, 9, 40);
    const QpSolutions<T> cold = solve_all(batch, default_settings<T>());
    const int n = family.n, m = family.m, p = family.p;
    int cold_iterations = 0, warm_iterations = 0;
    for (int64_t i = 0; i < batch.size; ++i) {
      batch.z0.insert(batch.z0.end(), cold.z(i), cold.z(i) + n);
      batch.nu0.insert(batch.nu0.end(), cold.nu(i), cold.nu(i) + p);
      batch.lam0.insert(batch.lam0.end(), cold.lam(i), cold.lam(i) + m);
      if (family.lb) batch.lam_lb0.insert(batch.lam_lb0.end(), cold.lam_lb(i), cold.lam_lb(i) + n);
      if (family.ub) batch.lam_ub0.insert(batch.lam_ub0.end(), cold.lam_ub(i), cold.lam_ub(i) + n);
      cold_iterations += cold.iterations(i);
    }
    const QpSolutions<T> warm = solve_all(batch, default_settings<T>());
    Settings pivoting = default_settings<T>();
    pivoting.near_start = false;
    const QpSolutions<T> pivoted = solve_all(batch, pivoting);
    for (int64_t i = 0; i < batch.size; ++i) {
      EXPECT_EQ(warm.status(i), Status::kSolved) << family.name;
      EXPECT_EQ(pivoted.status(i), Status::kSolved) << family.name;
      EXPECT_LE(support::judge(batch, pivoted, i)
                    .merit(default_settings<T>().eps_abs, default_settings<T>().eps_rel),
                1)
          << family.name;
      EXPECT_LE(support::judge(batch, warm, i)
                    .merit(default_settings<T>().eps_abs, default_settings<T>().eps_rel),
                1)
          << family.name;
      warm_iterations += warm.iterations(i);
    }
    EXPECT_LE(warm_iterations, cold_iterations) << family.name;
  }
}

}  // namespace
}  // namespace torchqp::cpu
