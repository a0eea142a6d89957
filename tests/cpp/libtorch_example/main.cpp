// Differentiable QPs in a LibTorch program: solve a batch, differentiate a loss twice, print
// everything.
//
// Each line of the output is `name: numbers`, row-major with 17 digits: the data (closed forms, so
// that it is the same everywhere), the solution, and the derivatives. Q, G, A, b, lb and ub are
// shared by the batch, q and h are not.
//
//   loss = sum_i cos(i) z_i + 1/2 (|nu|^2 + |lam|^2 + |lam_lb|^2 + |lam_ub|^2 + |s|^2)       grad_X = d
//   loss / dX curvature = 1/2 |grad_q|^2 second_X = d curvature / dX
//
// An argument names the device, as in `libtorch_example cuda`. Returns 1 when a problem was not solved.

#include <torch/torch.h>

#include <cmath>
#include <cstdio>
#include <string>
#include <utility>
#include <vector>

#include "torchqp/autograd.h"

namespace {

/// A float64 tensor with entry i, counted in row-major order, equal to formula(i).
template <class Formula>
torch::Tensor tensor(std::vector<int64_t> sizes, const Formula& formula) {
  torch::Tensor result = torch::empty(sizes, torch::kFloat64);
  for (int64_t i = 0; i < result.numel(); ++i) result.mutable_data_ptr<double>()[i] = formula(i);
  return result;
}

void print(const std::string& name, const torch::Tensor& values) {
  const torch::Tensor flat = values.detach().to(torch::kCPU, torch::kFloat64).contiguous();
  std::printf("%s:", name.c_str());
  for (int64_t i = 0; i < flat.numel(); ++i)
    std::printf(" %.17g", flat.const_data_ptr<double>()[i]);
  std::printf("\n");
}

}  // namespace

int main(int argc, char** argv) {
  const torch::Device device(argc > 1 ? argv[1] : "cpu");
  constexpr int64_t kBatch = 4, kVariables = 3, kRows = 2;
  const torch::Tensor root =
      tensor({kVariables, kVariables}, [](auto i) { return std::sin(1.0 + i); });
  const std::vector<std::pair<const char*, torch::Tensor>> data = {
      {"Q", (root.matmul(root.t()) + 0.5 * torch::eye(kVariables, torch::kFloat64)).contiguous()},
      {"q", tensor({kBatch, kVariables}, [](auto i) { return 2.0 * std::cos(1.0 * i); })},
      {"G", tensor({kRows, kVariables}, [](auto i) { return std::sin(2.0 + i); })},
      {"h", tensor({kBatch, kRows}, [](auto i) { return 0.2 + 0.1 * std::cos(1.0 * i); })},
      {"A", tensor({1, kVariables}, [](auto i) { return 1.0 + 0.1 * i; })},
      {"b", tensor({1}, [](auto) { return 0.1; })},
      {"lb", tensor({kVariables}, [](auto i) { return -0.1 - 0.02 * i; })},
      {"ub", tensor({kVariables}, [](auto i) { return 0.13 + 0.03 * i; })},
  };
  std::vector<torch::Tensor> theta;
  for (const auto& [name, value] : data) {
    print(name, value);
    theta.push_back(value.to(device, /*non_blocking=*/false, /*copy=*/true).requires_grad_());
  }

  const torchqp::Solution solution = torchqp::solve_qp(theta[0], theta[1], theta[2], theta[3],
                                                       theta[4], theta[5], theta[6], theta[7]);
  print("z", solution.z);
  print("nu", solution.nu);
  print("lam", solution.lam);
  print("lam_lb", solution.lam_lb);
  print("lam_ub", solution.lam_ub);
  print("s", solution.s);
  print("status", solution.status);

  const torch::Tensor weights =
      tensor({kBatch, kVariables}, [](auto i) { return std::cos(1.0 * i); }).to(device);
  torch::Tensor loss = (weights * solution.z).sum();
  for (const auto& output :
       {solution.nu, solution.lam, solution.lam_lb, solution.lam_ub, solution.s}) {
    loss = loss + 0.5 * output.square().sum();
  }
  const auto gradients =
      torch::autograd::grad({loss}, theta, /*grad_outputs=*/{}, /*retain_graph=*/true,
                            /*create_graph=*/true);
  for (size_t i = 0; i < data.size(); ++i)
    print(std::string("grad_") + data[i].first, gradients[i]);

  const torch::Tensor curvature = 0.5 * gradients[1].square().sum();
  const auto second = torch::autograd::grad({curvature}, theta);
  for (size_t i = 0; i < data.size(); ++i) print(std::string("second_") + data[i].first, second[i]);

  // Every argument batched, without a graph of the derivative: one pass writes the gradients.
  std::vector<torch::Tensor> batched;
  for (const auto& [name, value] : data) {
    auto sizes = value.sizes().vec();
    if (sizes[0] != kBatch) sizes.insert(sizes.begin(), kBatch);
    batched.push_back(value.expand(sizes).contiguous().to(device, false, true).requires_grad_());
  }
  const torchqp::Solution own = torchqp::solve_qp(batched[0], batched[1], batched[2], batched[3],
                                                  batched[4], batched[5], batched[6], batched[7]);
  const auto written = torch::autograd::grad(
      {(weights * own.z).sum() + own.lam.sum() + own.lam_lb.sum() + 0.5 * own.s.square().sum()},
      batched);
  for (size_t i = 0; i < data.size(); ++i)
    print(std::string("batched_") + data[i].first, written[i]);

  return solution.status.gt(1).any().item<bool>() ? 1 : 0;
}
