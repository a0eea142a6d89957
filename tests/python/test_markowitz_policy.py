"""The Markowitz policy at its smallest: the authors' numbers, its optimality and its gradients."""

import pytest
import torch

import torchqp
from experiments.markowitz_policy import peer, run
from experiments.markowitz_policy.policy import COST, Market, Policy, utility

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def market() -> Market:
    return Market.load()


def test_untuned_utility_is_the_authors(market):
    """Theirs is .004205 with SCS, whose holdings are off by 1e-3."""
    policy = Policy(market, torchqp.KKT())
    test = market.returns(run.TRIALS, run.TEST_SEED)
    with torch.no_grad():
        assert float(utility(policy, test, policy.start())) == pytest.approx(0.004205, abs=5e-6)


def test_trades_spend_what_they_cost_and_no_other_does_better(market):
    policy = Policy(market, torchqp.KKT())
    generator = torch.Generator().manual_seed(0)
    h = torch.rand(20, 12, generator=generator, dtype=torch.float64)
    h = h / h.sum(-1, keepdim=True)

    def paid(after: torch.Tensor) -> torch.Tensor:
        costs = (after - h).abs().sum(-1) + (-after).clamp(min=0.0).sum(-1)
        return (after - h).sum(-1) + COST * costs

    def objective(after: torch.Tensor) -> torch.Tensor:
        risk = (after @ policy.root.T).square().sum(-1)
        return after @ policy.mean - policy.gamma_root**2 * risk

    with torch.no_grad():
        after = policy(h)
        torch.testing.assert_close(paid(after), torch.zeros(20).double(), atol=1e-7, rtol=0)
        torch.testing.assert_close(policy(3.0 * h), 3.0 * after)
        for _ in range(50):
            other = after + 0.02 * torch.randn(20, 12, generator=generator, dtype=torch.float64)
            other = other - paid(other).clamp(min=0.0).unsqueeze(-1) / (12 * (1 - 2 * COST))
            feasible = paid(other) <= 0.0
            assert feasible.sum() > 15
            assert (objective(other) < objective(after))[feasible].all()


def test_exact_gradient_of_the_simulation_is_a_difference_quotient(market):
    """Over all 24 months, along a random direction; LPGD with a small tau has the same limit."""
    returns = market.returns(4, seed=0)
    policy = Policy(market, torchqp.KKT())
    start = policy.start()
    generator = torch.Generator().manual_seed(0)
    directions = [
        1e-3 * torch.randn(p.shape, generator=generator, dtype=torch.float64)
        for p in policy.parameters()
    ]

    def moved(step: float) -> float:
        other = Policy(market, torchqp.KKT())
        with torch.no_grad():
            for parameter, direction in zip(other.parameters(), directions, strict=True):
                parameter += step * direction
            return float(utility(other, returns, start))

    difference = (moved(1e-5) - moved(-1e-5)) / 2e-5
    for backward in (torchqp.KKT(), torchqp.LPGD(tau=1e-8)):
        other = Policy(market, backward)
        gradients = torch.autograd.grad(utility(other, returns, start), other.parameters())
        derivative = sum((g * d).sum() for g, d in zip(gradients, directions, strict=True))
        assert float(derivative) == pytest.approx(difference, rel=1e-4)


def test_lpgd_raises_the_utility_faster_than_exact_gradients(market):
    """The claim of the experiment after 10 of its 400 steps."""
    gains = {}
    for mode in (run.GD, run.Mode("average", 0.3)):
        record = run.execute(run.Run(mode, steps=10, test_every=10, many_trials=10))
        assert record["step"] == [0, 10]
        gains[mode.side] = record["test_utility"][1] - record["test_utility"][0]
    assert 1.0e-4 < gains["exact"] < gains["average"] - 2e-5


@pytest.mark.skipif(peer.CVXPYLAYERS_MISSING is not None, reason=str(peer.CVXPYLAYERS_MISSING))
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # cvxpylayers' use of numpy
def test_cvxpylayers_agrees_where_its_solver_finds_the_active_set():
    month = peer.gradient_check(months=4)[3]
    assert month["cvxpylayers, Clarabel: error of holdings"] < 1e-4
    assert month["cvxpylayers, Clarabel"] == pytest.approx(month["difference"], rel=1e-3)
    assert month["torchqp"] == pytest.approx(month["difference"], rel=1e-6)


def test_table_and_figure_come_from_the_records(tmp_path):
    runs = []
    for mode, gain in ((run.GD, 1e-4), (run.Mode("average", 0.1, 0.01), 3e-4)):
        step = list(range(0, 41, 10))
        runs.append(
            {
                "mode": list(mode),
                "step": step,
                "test_utility": [0.005 + gain * s / 40 for s in step],
                "gradient_norm": [1.0] * 40,
                "many_before": 0.003,
                "many_after": 0.004,
                "seconds": 1.0,
            }
        )
    text = run.table({"runs": runs})
    assert "| GD (exact) | 0.00500 | 0.00505 | 0.00510 | 40 | never |" in text
    assert "| LPGD average, tau 0.1, rho 0.01 | 0.00500 | 0.00515 | 0.00530 | 20 | 40 |" in text
    run.draw({"runs": runs}, tmp_path / "utility.png")
    assert (tmp_path / "utility.png").read_bytes().startswith(b"\x89PNG")
