#pragma once
// The outcome of one problem. The numbers are part of the API and never change.

#include <cstdint>

namespace torchqp {

enum class Status : int32_t {
  kSolved = 0,            ///< residuals, recomputed on the caller's data, are within the tolerances
  kSolvedInaccurate = 1,  ///< the best iterate is within 1e3 times the tolerances; values and
                          ///< gradients are usable with care
  kPrimalInfeasible = 2,  ///< no point satisfies the constraints; the multipliers found prove it
  kDualInfeasible =
      3,  ///< the objective is unbounded below on the constraints; the direction found proves it
  kMaxIterations = 4,   ///< the iteration limit came first; raise max_iter or rescale the problem
  kNumericalError = 5,  ///< arithmetic broke down before any usable iterate, or a float cannot hold
                        ///< the solution
  kInvalidInput = 6,    ///< NaN or infinite data, or a lower bound above its upper bound
  kNotConvex = 7,       ///< Q has a negative eigenvalue
};

/// True where the solution may be used: its values are finite and its gradient is formed.
constexpr bool is_solved(Status status) {
  return status <= Status::kSolvedInaccurate;
}

/// Whether a member that single precision ended so is solved again in double precision.
constexpr bool needs_double(int32_t status) {
  return status != static_cast<int32_t>(Status::kSolved) &&
         status != static_cast<int32_t>(Status::kInvalidInput);
}

constexpr const char* to_string(Status status) {
  switch (status) {
    case Status::kSolved:
      return "solved";
    case Status::kSolvedInaccurate:
      return "solved_inaccurate";
    case Status::kPrimalInfeasible:
      return "primal_infeasible";
    case Status::kDualInfeasible:
      return "dual_infeasible";
    case Status::kMaxIterations:
      return "max_iterations";
    case Status::kNumericalError:
      return "numerical_error";
    case Status::kInvalidInput:
      return "invalid_input";
    case Status::kNotConvex:
      return "not_convex";
  }
  return "unknown";
}

}  // namespace torchqp
