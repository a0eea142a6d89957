// Solves problems in single precision alone, without the second try in double precision that every
// caller gets: what tests/python/trust/test_published_problems.py counts.
//
// Standard input: for each problem the int32 n, m, p, lb, ub (whether there are such bounds), then
// as float Q [n, n], q [n], G [m, n], h_lower [m], h [m], A [p, n], b [p], lb [n], ub [n], the last
// two where they are there. Standard output: for each the int32 status, then as float z [n], nu [p],
// lam [m] and the net multipliers of the bounds [n], upper side minus lower side.

#include <algorithm>
#include <cstdio>
#include <vector>

#include "qp/fill_solver.hpp"
#include "qp/solve.hpp"

namespace torchqp::qp {
namespace {

bool read(void* to, size_t size, size_t count) {
  return std::fread(to, size, count, stdin) == count;
}

bool write(const void* from, size_t size, size_t count) {
  return std::fwrite(from, size, count, stdout) == count;
}

bool read_problem(support::QpBatch<float>& problem) {
  int32_t sizes[5];
  if (!read(sizes, sizeof(int32_t), 5)) return false;
  const int n = sizes[0], m = sizes[1], p = sizes[2];
  problem.size = 1;
  problem.dims = {n, m, p, m > 0, m > 0, sizes[3] != 0, sizes[4] != 0, false};
  const auto take = [](std::vector<float>& array, size_t count) {
    array.resize(count);
    return read(array.data(), sizeof(float), count);
  };
  return take(problem.Q, size_t(n) * n) && take(problem.q, n) && take(problem.G, size_t(m) * n) &&
         take(problem.h_lower, m) && take(problem.h, m) && take(problem.A, size_t(p) * n) &&
         take(problem.b, p) && take(problem.lb, sizes[3] ? n : 0) &&
         take(problem.ub, sizes[4] ? n : 0);
}

bool solve_and_write(const support::QpBatch<float>& problem) {
  const Shape shape = Shape::of<SerialTeam, float>(problem.dims);
  support::Scratch scratch;
  Arena<float> arena{scratch.get<float>(solver_size<SerialTeam, float>(problem.dims))};
  Settings settings = with_data_precision<float>(default_settings<float>());
  Solver<float> solver(shape, settings, arena);
  fill_data(solver.data, problem);
  solve(SerialTeam{}, solver, false, Prepared::kNothing, false, false);
  const Result<float>& result = solver.result;
  const int32_t status = static_cast<int32_t>(result.status[0]);
  std::vector<float> bounds(shape.n, 0.0F);
  if (shape.bounds) std::copy_n(result.lam + shape.mp, shape.n, bounds.begin());
  return write(&status, sizeof status, 1) && write(result.z, sizeof(float), shape.n) &&
         write(result.nu, sizeof(float), shape.p) && write(result.lam, sizeof(float), shape.m) &&
         write(bounds.data(), sizeof(float), shape.n);
}

}  // namespace
}  // namespace torchqp::qp

int main() {
  torchqp::support::QpBatch<float> problem;
  while (torchqp::qp::read_problem(problem)) {
    if (!torchqp::qp::solve_and_write(problem)) return 1;
  }
  return std::feof(stdin) ? 0 : 1;
}
