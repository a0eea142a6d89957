"""Optimal power flow at its smallest: published optima, Kirchhoff's laws, what gradients learn."""

import numpy as np
import pytest
import torch

import torchqp
from experiments.common import Protocol, linear_task
from experiments.dc_opf import pglib, run, synthetic

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    ("name", "published"),
    [("case39_epri", 1.3689e5), ("case57_ieee", 3.4773e4), ("case118_ieee", 9.3101e4)],
)
def test_optimum_of_a_real_grid_is_the_published_one(name, published):
    """PGLib's table of direct-current optima, to its five digits."""
    case = pglib.read(name)
    rows = np.abs(case.factors @ case.at.T).max(-1) > 1e-9
    flows = torch.from_numpy((case.factors @ case.at.T)[rows])
    drawn = torch.from_numpy((case.factors @ case.demand)[rows])
    limit, low, high, price = map(
        torch.from_numpy, (case.limit[rows], case.low, case.high, case.price)
    )
    solution = torchqp.solve_qp(
        torchqp.Diag(torch.zeros_like(price)),
        price,
        flows,
        drawn + limit,
        torch.ones(1, len(price), dtype=torch.float64),
        float(case.demand.sum()),
        low,
        high,
        h_lower=drawn - limit,
    ).raise_for_status()
    assert float(solution.z @ price) + case.c0 == pytest.approx(published, rel=5e-5)


def test_made_grid_keeps_the_laws_and_its_limits():
    grid = synthetic.load(seed=0)
    everything = torch.arange(synthetic.SAMPLES)
    x = grid.solve(grid.costs, everything)
    consumed, currents = (x @ grid.rows.T).tensor_split([synthetic.NODES], dim=-1)
    torch.testing.assert_close(consumed.sum(-1), torch.zeros(512).double(), atol=1e-8, rtol=0)
    flows = torch.cat([consumed, currents], dim=-1)
    assert (flows - grid.upper).max() < 1e-6 and (grid.lower - flows).max() < 1e-6
    assert (consumed * grid.prices).sum(-1).min() >= -1e-6  # nothing at all is feasible
    torch.testing.assert_close((consumed * grid.prices).sum(-1), grid.best)
    assert (grid.worst < grid.best - 1.0).all()


def test_smoothed_gradients_get_further_than_exact_ones(tmp_path):
    """The claim of Fig. 4c after three of fifteen epochs."""
    runs = [
        run.execute(run.Run(run.SYNTHETIC, 0, name, Protocol(3, 32, 1e-3)))
        for name in ("exact", "smoothed")
    ]
    exact, smoothed = (record["curves"]["train_regret"][-1] for record in runs)
    assert smoothed < exact - 0.1
    linear_task.draw({"runs": runs}, tmp_path / "regret.png")
    assert (tmp_path / "regret.png").read_bytes().startswith(b"\x89PNG")


def test_every_backward_learns_a_real_grid():
    for name in linear_task.LAYERS:
        record = run.execute(run.Run("case57_ieee", 0, name, Protocol(3, 32, 1e-3)))
        first, *_, last = record["curves"]["train_regret"]
        assert last < 0.7 * first, name
