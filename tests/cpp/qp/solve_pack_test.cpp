#include "qp/solve_on_teams.hpp"

namespace torchqp::qp {
using PackOfFour = Pack<double, 4>;
INSTANTIATE_TYPED_TEST_SUITE_P(Pack, SolveOnTeams, PackOfFour);
}  // namespace torchqp::qp
