#include "qp/solve_on_teams.hpp"

namespace torchqp::qp {
INSTANTIATE_TYPED_TEST_SUITE_P(Double, SolveOnTeams, double);
}  // namespace torchqp::qp
