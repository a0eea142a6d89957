// Status numbers and names are API: they are written out here and never follow the header.
#include "core/status.hpp"

#include <gtest/gtest.h>

#include <array>

namespace torchqp {
namespace {

struct Frozen {
  Status status;
  int number;
  const char* name;
  bool solved;
};

constexpr std::array kFrozen{
    Frozen{Status::kSolved, 0, "solved", true},
    Frozen{Status::kSolvedInaccurate, 1, "solved_inaccurate", true},
    Frozen{Status::kPrimalInfeasible, 2, "primal_infeasible", false},
    Frozen{Status::kDualInfeasible, 3, "dual_infeasible", false},
    Frozen{Status::kMaxIterations, 4, "max_iterations", false},
    Frozen{Status::kNumericalError, 5, "numerical_error", false},
    Frozen{Status::kInvalidInput, 6, "invalid_input", false},
    Frozen{Status::kNotConvex, 7, "not_convex", false},
};

TEST(Status, NumbersAndNamesAreFrozen) {
  for (const Frozen& frozen : kFrozen) {
    EXPECT_EQ(static_cast<int>(frozen.status), frozen.number) << frozen.name;
    EXPECT_STREQ(to_string(frozen.status), frozen.name);
  }
}

TEST(Status, OnlySolvedAndSolvedInaccurateMayBeUsed) {
  for (const Frozen& frozen : kFrozen)
    EXPECT_EQ(is_solved(frozen.status), frozen.solved) << frozen.name;
}

TEST(Status, ANumberBeyondTheLastHasNoName) {
  EXPECT_STREQ(to_string(static_cast<Status>(8)), "unknown");
}

}  // namespace
}  // namespace torchqp
