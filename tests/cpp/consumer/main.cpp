// Projects points onto the probability simplex with the installed library: two QPs that share Q, A
// and b.
//
//   z* = argmin 1/2 ||z||^2 + q'z   s.t.  sum z = 1,  z >= 0
#include <cmath>
#include <cstdio>
#include <new>
#include <torchqp/cpu/solve_batch.hpp>
#include <vector>

int main() {
  constexpr int kVariables = 3;
  constexpr int kProblems = 2;
  const std::vector<double> Q(kVariables, 1.0), A(kVariables, 1.0), b{1.0}, lb(kVariables, 0.0);
  const std::vector<double> q{-0.5, -0.5, -0.3, -2.0, 0.0, 1.0};
  const std::vector<double> expected{0.4, 0.4, 0.2, 1.0, 0.0, 0.0};

  torchqp::BatchLayout one_per_problem;
  one_per_problem.ndim = 1;
  one_per_problem.sizes[0] = kProblems;
  one_per_problem.strides[0] = kVariables;

  torchqp::ProblemBatch<double> problem;
  problem.dims.n = kVariables;
  problem.dims.p = 1;
  problem.dims.lb = true;
  problem.dims.diagonal = true;
  problem.size = kProblems;
  problem.Q = {Q.data(), 1, 0, {}};
  problem.q = {q.data(), 1, 0, one_per_problem};
  problem.A = {A.data(), kVariables, 1, {}};
  problem.b = {b.data(), 1, 0, {}};
  problem.lb = {lb.data(), 1, 0, {}};

  std::vector<double> z(kProblems * kVariables), nu(kProblems), lam_lb(kProblems * kVariables);
  std::vector<double> residuals(kProblems * 4);
  std::vector<int32_t> status(kProblems), iterations(kProblems);
  std::vector<int8_t> active(kProblems * kVariables);
  torchqp::SolutionBatch<double> solution;
  solution.z = z.data();
  solution.nu = nu.data();
  solution.lam_lb = lam_lb.data();
  solution.status = status.data();
  solution.iterations = iterations.data();
  solution.residuals = residuals.data();
  solution.active = active.data();

  const size_t bytes = torchqp::cpu::solve_workspace_bytes<double>(problem.dims);
  constexpr std::align_val_t kAlignment{64};
  void* workspace = ::operator new(bytes, kAlignment);
  torchqp::cpu::solve_batch(problem, torchqp::Settings{}, solution, 0, kProblems, workspace);
  ::operator delete(workspace, kAlignment);

  double error = 0;
  for (size_t i = 0; i < z.size(); ++i) error = std::fmax(error, std::abs(z[i] - expected[i]));
  std::printf("status %d %d, largest error %.1e\n", status[0], status[1], error);
  return status[0] == 0 && status[1] == 0 && error <= 1e-7 ? 0 : 1;
}
