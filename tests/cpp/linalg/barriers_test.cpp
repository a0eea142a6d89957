// Every barrier of the routines is needed, and needed by a test: see support/mutation.hpp.
#include <gtest/gtest.h>

#include "linalg/routines.hpp"
#include "support/mutation.hpp"

namespace torchqp::linalg {
namespace {

using support::team_case;

constexpr int kSize = 13, kRows = 9;

TEST(Barriers, EveryOneIsMissedWhenItIsOff) {
  if (support::kThreadSanitizer) GTEST_SKIP() << "without a barrier the lanes race on purpose";
  const auto square = support::random_problems<double>(1, kSize * kSize, 1);
  const auto wide = support::random_problems<double>(1, kRows * kSize, 2);
  const auto vector = support::random_problems<double>(1, kSize, 3);
  const support::SerialLaunch serial;
  const auto H = run_multiply_rows<Into::kReplace, double>(serial, square, square, square, kSize,
                                                           kSize, kSize, false);
  const auto factor = run_factor_cholesky<Pivot::kRequire, double>(serial, H, kSize, 0.0);
  const auto report = support::switch_off_barriers({
      team_case("factor_cholesky",
                [&](const auto& launch) {
                  return run_factor_cholesky<Pivot::kRequire, double>(launch, H, kSize, 0.0).L[0];
                }),
      team_case("solve_cholesky",
                [&](const auto& launch) {
                  return run_solve<double>(launch, Solve::kCholesky, factor.L, factor.inverse_diag,
                                           vector, kSize)[0];
                }),
      team_case("solve_lower_rows",
                [&](const auto& launch) {
                  return run_solve_lower_rows<double>(launch, factor.L, factor.inverse_diag, wide,
                                                      kRows, kSize)[0];
                }),
      team_case("multiply",
                [&](const auto& launch) {
                  return run_multiply<Into::kAdd, double>(launch, false, wide, vector, vector,
                                                          kRows, kSize)[0];
                }),
      team_case("multiply_transposed",
                [&](const auto& launch) {
                  return run_multiply<Into::kAdd, double>(launch, true, wide, vector, vector, kRows,
                                                          kSize)[0];
                }),
      team_case("multiply_rows",
                [&](const auto& launch) {
                  return run_multiply_rows<Into::kReplace, double>(launch, wide, square, wide,
                                                                   kRows, kSize, kSize, false)[0];
                }),
      team_case("subtract_gram",
                [&](const auto& launch) {
                  return run_subtract_gram<double>(launch, square, H, kSize, kSize)[0];
                }),
      team_case("add_weighted_gram",
                [&](const auto& launch) {
                  return run_add_weighted_gram<double>(launch, H, wide, vector, kSize, kRows)[0];
                }),
  });
  EXPECT_EQ(report.unnoticed_places(), std::vector<std::string>{});
  EXPECT_EQ(report.barriers.size(), 15u) << "a new barrier needs a case here";
}

}  // namespace
}  // namespace torchqp::linalg
