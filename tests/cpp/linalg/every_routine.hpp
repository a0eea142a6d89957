#pragma once
// Every linalg routine as a computation over a team.

#include <algorithm>
#include <vector>

#include "linalg/routines.hpp"
#include "support/team_case.hpp"

namespace torchqp::linalg {

/// The routines on random problems of T: square matrices of n rows, others of `rows` rows and n
/// columns.
template <class T>
std::vector<support::TeamCase> every_routine(int n, int rows) {
  const auto square = support::random_problems<T>(1, n * n, 1);
  const auto wide = support::random_problems<T>(1, rows * n, 2);
  const auto vector = support::random_problems<T>(1, std::max(n, rows), 3);
  const support::SerialLaunch serial;
  auto H = run_multiply_rows<Into::kReplace, T>(serial, square, square, square, n, n, n, false);
  for (int i = 0; i < n; ++i) H[0][i * n + i] += n;  // far from singular in every precision
  const auto factor = run_factor_cholesky<Pivot::kRequire, T>(serial, H, n, 0.0);
  std::vector<support::TeamCase> cases;
  const auto add = [&](const char* name, auto compute) {
    cases.push_back(support::team_case(name, [compute](const auto& launch) {
      const std::vector<T> values = compute(launch);
      return std::vector<double>(values.begin(), values.end());
    }));
  };
  add("factor_cholesky", [=](const auto& launch) {
    auto result = run_factor_cholesky<Pivot::kRequire, T>(launch, H, n, 0.0);
    result.L[0].insert(result.L[0].end(), result.inverse_diag[0].begin(),
                       result.inverse_diag[0].end());
    return result.L[0];
  });
  add("solve_cholesky", [=](const auto& launch) {
    return run_solve<T>(launch, Solve::kCholesky, factor.L, factor.inverse_diag, vector, n)[0];
  });
  add("solve_lower_rows", [=](const auto& launch) {
    return run_solve_lower_rows<T>(launch, factor.L, factor.inverse_diag, wide, rows, n)[0];
  });
  add("multiply", [=](const auto& launch) {
    return run_multiply<Into::kAdd, T>(launch, false, wide, vector, vector, rows, n)[0];
  });
  add("multiply_transposed", [=](const auto& launch) {
    return run_multiply<Into::kAdd, T>(launch, true, wide, vector, vector, rows, n)[0];
  });
  add("multiply_both", [=](const auto& launch) {
    return run_multiply_both<T>(launch, wide, vector, vector, rows, n)[0];
  });
  add("multiply_rows", [=](const auto& launch) {
    return run_multiply_rows<Into::kReplace, T>(launch, wide, square, wide, rows, n, n, false)[0];
  });
  add("multiply_rows, added", [=](const auto& launch) {
    return run_multiply_rows<Into::kAdd, T>(launch, wide, square, wide, rows, n, n, false)[0];
  });
  add("multiply_rows, symmetric", [=](const auto& launch) {
    return run_multiply_rows<Into::kReplace, T>(launch, wide, wide, square, rows, rows, n, true)[0];
  });
  add("subtract_gram",
      [=](const auto& launch) { return run_subtract_gram<T>(launch, square, H, n, n)[0]; });
  add("add_weighted_gram", [=](const auto& launch) {
    return run_add_weighted_gram<T>(launch, H, wide, vector, n, rows)[0];
  });
  return cases;
}

}  // namespace torchqp::linalg
