"""The LogSumExp experiment at its smallest: the true problem, its derivative, what is learned."""

import pytest
import torch

from experiments.common import Protocol, stocks
from experiments.logsumexp import methods, peer, run, task

SHORT = Protocol(epochs=3, batch_size=32, lr=1e-3)


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def market() -> task.Task:
    return task.Task.build(stocks.load(seed=0, feature_set="forecast"))


def test_decisions_meet_the_optimality_conditions(market):
    """Also on the five days on which every stock falls."""
    returns = market.returns
    assert (returns.amax(-1) < 0).sum() == 5
    for p in (returns, 10.0 * returns, 0.1 + 0.01 * returns):
        x = task.decide(p)
        gradient = p * torch.softmax(-p * x, dim=-1)
        gap = gradient.amax(-1) - (gradient * x).sum(-1)  # bounds f* - f: f is concave
        torch.testing.assert_close(x.sum(-1), torch.ones(len(p), dtype=torch.float64))
        assert x.min() >= 0.0
        assert gap.max() < 1e-9


def test_objective_is_the_return_in_percent_to_first_order():
    p = torch.tensor([[0.01, -0.02, 0.0]], dtype=torch.float64)
    x = torch.tensor([[0.5, 0.25, 0.25]], dtype=torch.float64)
    assert float(task.value(p, x)) == pytest.approx(100 * float((p * x).sum()), abs=5e-3)


def test_derivative_of_the_true_problem_is_a_difference_quotient():
    p = peer.predictions(samples=8)
    generator = torch.Generator().manual_seed(1)
    weights, direction = torch.randn(2, *p.shape, generator=generator, dtype=torch.float64)
    x = task.differentiable(p)
    torch.testing.assert_close(x.detach(), task.decide(p), atol=1e-9, rtol=0)
    (gradient,) = torch.autograd.grad((x * weights).sum(), p)
    step = 1e-7 * direction
    difference = (task.decide(p + step) - task.decide(p - step)) * weights / 2e-7
    assert gradient.norm() > 100.0
    torch.testing.assert_close(
        (gradient * direction).sum(-1), difference.detach().sum(-1), rtol=1e-4, atol=1e-6
    )


@pytest.mark.skipif(peer.CVXPYLAYERS_MISSING is not None, reason=str(peer.CVXPYLAYERS_MISSING))
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # cvxpylayers' use of numpy
def test_derivative_of_the_true_problem_is_cvxpylayers():
    p = peer.predictions(samples=4)
    weights = torch.randn(p.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    gradients = [
        torch.autograd.grad((solve(p) * weights).sum(), p)[0]
        for solve in (task.differentiable, peer.layer(p.shape[1]))
    ]
    assert (gradients[0] - gradients[1]).norm() < 2e-3 * gradients[0].norm()


def test_smoothed_is_ahead_of_exact_and_that_of_the_true_problem(market):
    """In training regret after three epochs, as in Table 1 on unseen days after thirty."""
    regret = {
        name: run.execute(run.Run("forecast", 0, name, SHORT))["train_regret"]
        for name in ("smoothed", "exact", methods.TRUE_PROBLEM)
    }
    assert regret["smoothed"] < regret["exact"] - 0.02
    assert regret["exact"] < regret[methods.TRUE_PROBLEM] - 0.02


def test_table_ratios_and_figure(tmp_path):
    names = (methods.UNIFORM, "exact", "smoothed")
    runs = [run.execute(run.Run("forecast", 0, name, Protocol(1, 64, 1e-3))) for name in names]
    assert runs[0]["range_regret"] == pytest.approx(0.509, abs=1e-3)
    expected = runs[2]["range_regret"] / runs[1]["range_regret"]
    assert run.ratios({"runs": runs}, "forecast") == pytest.approx([expected])
    assert "| 0.438 | 801 |" in run.table({"runs": runs})
    run.draw({"runs": runs}, tmp_path / "regret.png")
    assert (tmp_path / "regret.png").read_bytes().startswith(b"\x89PNG")
