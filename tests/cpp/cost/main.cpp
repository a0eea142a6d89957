// Fixed problems whose solution is counted in instructions: `cost` describes itself in JSON, `cost
// CASE` runs one case and prints the instruction-set level that ran. See check.py.

#include <algorithm>
#include <cstdio>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "cpu/kernel_table.hpp"
#include "cpu/kkt_batch.hpp"
#include "cpu/solve_batch.hpp"
#include "support/qp.hpp"
#include "support/scratch.hpp"

/// What happens in here is counted: check.py names this function to callgrind.
extern "C" [[gnu::noinline]] void cost_measured(const std::function<void()>& work) {
  work();
  asm volatile("" ::: "memory");  // returns here, so that the end of the call is seen
}

namespace torchqp {
namespace {

using support::Family;

/// Diagonal Q, z >= 0, sum of z = 1.
template <class T>
support::QpBatch<T> simplex(const Family& family, int64_t size, unsigned seed) {
  support::QpBatch<T> batch = support::random_batch<T>(family, size, seed);
  std::fill(batch.A.begin(), batch.A.end(), T(1));
  std::fill(batch.b.begin(), batch.b.end(), T(1));
  std::fill(batch.lb.begin(), batch.lb.end(), T(0));
  return batch;
}

enum class Call { kSolve, kKkt };

/// Solves the batch with its factors; then one linearised system a member with each of them.
template <class T>
bool run(const support::QpBatch<T>& batch, Call call) {
  const ProblemBatch<T> problem = batch.view();
  support::QpSolutions<T> solutions(batch.dims, batch.size, true);
  const SolutionBatch<T> out = solutions.view();
  support::Scratch scratch;
  auto* workspace = scratch.get<unsigned char>(cpu::solve_workspace_bytes<T>(batch.dims));
  const auto solve = [&] {
    cpu::solve_batch(problem, default_settings<T>(), out, 0, batch.size, workspace);
  };
  if (call == Call::kSolve) {
    cost_measured(solve);
  } else {
    solve();
    KktBatch<T> system;
    system.dims = batch.dims;
    system.dims.lb = system.dims.ub = batch.dims.bounds();
    system.size = batch.size;
    system.Q = problem.Q, system.G = problem.G, system.A = problem.A;
    const auto vectors = [&](const auto* data, int64_t length) {
      StridedArray<std::remove_cv_t<std::remove_pointer_t<decltype(data)>>> array;
      array.data = data;
      array.row = 1;
      array.batch.ndim = 1;
      array.batch.sizes[0] = batch.size;
      array.batch.strides[0] = length;
      return array;
    };
    std::mt19937 generator(7);
    std::normal_distribution<double> normal;
    const int n = batch.dims.n;
    std::vector<T> g_z(batch.size * n), d_z(g_z.size()), d_bound(g_z.size());
    std::vector<T> d_nu(batch.size * batch.dims.p + 1), d_lam(batch.size * batch.dims.m + 1);
    std::vector<int32_t> info(batch.size);
    for (T& value : g_z) value = static_cast<T>(normal(generator));
    system.active = vectors(static_cast<const int8_t*>(out.active), solutions.active_size());
    system.status = vectors(static_cast<const int32_t*>(out.status), 1);
    system.factor = vectors(static_cast<const T*>(out.factor), factor_size(batch.dims));
    system.g_z = vectors(static_cast<const T*>(g_z.data()), n);
    system.d_z = d_z.data(), system.d_nu = d_nu.data(), system.d_lam = d_lam.data();
    if (batch.dims.bounds()) system.d_bound = d_bound.data();
    system.info = info.data();
    auto* kkt_workspace = scratch.get<unsigned char>(cpu::kkt_workspace_bytes<T>(system.dims));
    cost_measured([&] { cpu::kkt_batch(system, 0, batch.size, kkt_workspace); });
  }
  for (int64_t i = 0; i < batch.size; ++i)
    if (solutions.status(i) != Status::kSolved) return false;
  return true;
}

struct Case {
  std::string name;
  std::function<bool(Call)> run;
};

template <class T>
Case random_case(std::string name, Family family, int64_t size) {
  return {std::move(name), [family, size](Call call) {
            return run(support::random_batch<T>(family, size, 1), call);
          }};
}

std::vector<Case> cases() {
  // name, n, m, p, h_lower, h, lb, ub, diagonal, singular, infinite, equalities
  const Family rows_10 = {"", 10, 10, 0, false, true, false, false, false, false, 0, 0};
  const Family rows_20 = {"", 20, 20, 0, false, true, false, false, false, false, 0, 0};
  const Family rows_50 = {"", 50, 50, 10, false, true, false, false, false, false, 0, 0};
  const Family box_50 = {"", 50, 0, 0, false, false, true, true, true, false, 0, 0};
  const Family simplex_50 = {"", 50, 0, 1, false, false, true, false, true, false, 0, 0};
  return {
      random_case<double>("rows_10", rows_10, 16),
      random_case<double>("rows_20", rows_20, 16),
      random_case<float>("rows_20_float", rows_20, 16),
      random_case<double>("rows_50", rows_50, 16),
      random_case<double>("rows_50_alone", rows_50, 1),
      random_case<double>("box_50", box_50, 16),
      {"simplex_50",
       [=](Call call) { return torchqp::run(simplex<double>(simplex_50, 16, 1), call); }},
  };
}

int describe() {
  std::printf("{\"compiler\": \"%s\", \"cases\": [", TORCHQP_COMPILER);
  const char* separator = "";
  for (const Case& one : cases()) {
    std::printf("%s\"%s solve\", \"%s kkt\"", separator, one.name.c_str(), one.name.c_str());
    separator = ", ";
  }
  std::printf("]}\n");
  return 0;
}

int run_named(const std::string& name) {
  for (const Case& one : cases())
    for (const Call call : {Call::kSolve, Call::kKkt}) {
      if (name != one.name + (call == Call::kSolve ? " solve" : " kkt")) continue;
      std::printf("%s\n", cpu::kernels().name);
      if (one.run(call)) return 0;
      std::fprintf(stderr, "%s: not every member was solved\n", name.c_str());
      return 1;
    }
  std::fprintf(stderr, "no case '%s'\n", name.c_str());
  return 2;
}

}  // namespace
}  // namespace torchqp

int main(int argc, char** argv) {
  return argc == 2 ? torchqp::run_named(argv[1]) : torchqp::describe();
}
