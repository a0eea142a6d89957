#include "qp/solve_on_teams.hpp"

namespace torchqp::qp {
INSTANTIATE_TYPED_TEST_SUITE_P(Float, SolveOnTeams, float);
}  // namespace torchqp::qp
