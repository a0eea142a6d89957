"""The portfolio experiment at its smallest: data, metrics, and the layer's effect on training."""

import json

import numpy as np
import pytest
import torch

from experiments.common import Protocol, linear, load_npz, stocks
from experiments.common.decisions import best_so_far
from experiments.common.metrics import range_regret, relative_regret
from experiments.portfolio import figures, methods, run, tables
from experiments.portfolio.task import Task, decide

SHORT = Protocol(epochs=3, batch_size=32, lr=1e-3)


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def samples() -> stocks.StockData:
    return stocks.load(seed=0, feature_set="forecast")


@pytest.fixture(scope="module")
def linear_task(samples) -> Task:
    return Task.build(samples, lam=0.0)


@pytest.fixture(scope="module")
def records(linear_task) -> dict[str, dict]:
    names = ("exact", "smoothed", "LPGD lower")
    return {name: run.train(name, linear_task, seed=0, protocol=SHORT) for name in names}


def test_file_with_another_checksum_is_refused(tmp_path):
    path = tmp_path / "closes.npz"
    np.savez(path, close=np.ones(3))
    with pytest.raises(ValueError, match="expected SHA-256"):
        load_npz(path, stocks.SHA256)


def test_features_and_targets_follow_from_the_closes(samples):
    raw = load_npz(stocks.FILE, stocks.SHA256)
    rows = np.random.default_rng(0).choice(np.flatnonzero(raw["clean"]), 50, replace=False)
    close = torch.from_numpy(raw["close"][rows].astype(np.float64))
    days = 365 + torch.arange(len(samples.returns))
    daily = close[:, 1:] / close[:, :-1] - 1  # column t - 1: the return of day t
    assert raw["dates"][days[0]] == 20140723
    assert raw["dates"][days[-1]] == 20171229
    torch.testing.assert_close(samples.returns, 100 * daily[:, days].T)

    features = samples.features.double().view(len(days), 50, 29)
    by_hand = {  # standardising keeps correlation 1
        0: daily[:, days - 1],  # current return
        10: daily[:, days - 11],  # ten days before
        11: close[:, days] / close[:, days - 365] - 1,
        15: daily.unfold(1, 7, 1).mean(-1)[:, days - 7],
        20: close.unfold(1, 120, 1).var(-1)[:, days - 119],
        27: close[:, days],
    }
    for column, expected in by_hand.items():
        pair = torch.stack([features[:, :, column].flatten(), expected.T.flatten()])
        assert torch.corrcoef(pair)[0, 1] == pytest.approx(1.0, abs=1e-6), column
    forecast = torch.stack([features[:, :, 28].flatten(), samples.returns.flatten()])
    assert torch.corrcoef(forecast)[0, 1] == pytest.approx(0.5, abs=0.02)

    third = torch.nn.functional.normalize(daily[:, 3 + 366 : 3 + 375], dim=1)
    expected = 0.9 * third @ third.T + 0.1 * torch.eye(50, dtype=torch.float64)
    torch.testing.assert_close(samples.risk[3], expected)


def test_regret_by_hand():
    best, worst = torch.tensor([2.0, 1.0]), torch.tensor([-2.0, 0.0])
    value = torch.tensor([1.0, 0.5])
    assert relative_regret(value, best) == pytest.approx(1.5 / 3.0)
    assert range_regret(value, best, worst) == pytest.approx((0.25 + 0.5) / 2)


def test_decisions_meet_the_optimality_conditions_of_the_task(samples):
    lam, few = 0.5, slice(0, 20)
    p, risk = samples.returns[few], samples.risk[few]
    x = decide(p, risk, lam)
    gradient = p - 2 * lam * torch.einsum("bij,bj->bi", risk, x)
    gap = gradient.amax(-1) - (gradient * x).sum(-1)  # Frank-Wolfe gap bounds f* - f
    torch.testing.assert_close(x.sum(-1), torch.ones(20, dtype=torch.float64), atol=1e-7, rtol=0)
    assert x.min() > -1e-7
    assert gap.max() < 1e-6


def test_best_and_worst_at_lam_zero_are_the_extreme_returns(samples, linear_task):
    torch.testing.assert_close(linear_task.best, samples.returns.amax(-1), atol=1e-6, rtol=0)
    torch.testing.assert_close(linear_task.worst, samples.returns.amin(-1), atol=0, rtol=0)


def test_exact_gradients_vanish_and_training_stops(records):
    """At the vertices that the network soon predicts, no objective parameter has a gradient."""
    assert records["exact"]["zero_share"] > 0.9
    assert records["exact"]["train_regret"] > 0.85  # of |f*|; the uniform portfolio has 0.98


@pytest.mark.parametrize("name", ["smoothed", "LPGD lower"])
def test_other_gradients_do_not_vanish_and_training_goes_on(records, name):
    assert max(records[name]["curves"]["zero_share"]) < 0.02
    if name == "smoothed":
        assert max(records[name]["curves"]["zero_share"]) == 0.0
    assert records[name]["train_regret"] < 0.70
    regrets = records[name]["curves"]["train_regret"]
    assert regrets == sorted(regrets, reverse=True)


@pytest.mark.skipif(linear.PYEPO_MISSING is not None, reason=str(linear.PYEPO_MISSING))
@pytest.mark.parametrize("name", [linear.SPO_PLUS, linear.IDENTITY])
def test_linear_methods_learn_at_a_positive_risk_weight(samples, name):
    task = Task.build(samples, lam=0.1)
    record = run.train(name, task, seed=0, protocol=SHORT)
    regrets = record["curves"]["train_regret"]
    assert regrets[-1] < 0.93  # the uniform portfolio has 0.99


def test_best_so_far_follows_validation():
    curves = {
        "validation_regret": [3.0, 2.0, 2.5, 1.0],
        "test_range_regret": [0.4, 0.5, 0.1, 0.3],
    }
    assert best_so_far(curves) == [0.4, 0.5, 0.5, 0.3]


def test_grid_yields_tables_and_figures(tmp_path):
    settings = run.Settings(Protocol(1, 64, 1e-3), lams={"forecast": (0.0, 1.0)}, seeds=(0,))
    names = [methods.UNIFORM, "exact", "smoothed"]
    runs = [run.execute(cell) for cell in run.grid(settings) if cell.method in names]
    record = json.loads(json.dumps({"runs": runs}))
    assert [(r["lam"], r["method"]) for r in runs] == [(a, m) for a in (0.0, 1.0) for m in names]
    uniform = runs[0]
    assert uniform["range_regret"] == pytest.approx(0.518, abs=1e-3)

    by_method = {r["method"]: r for r in runs if r["lam"] == 0.0}
    margin = by_method["exact"]["range_regret"] - by_method["smoothed"]["range_regret"]
    assert tables.paired_margins(record, "forecast", 0.0) == pytest.approx([margin])
    assert f"| forecast | 0 | {margin:+.3f} | {margin:+.3f} |" in tables.margins(record)
    assert tables.results(record).count("\n") == 2 + len(runs)

    figures.draw_regret(record, tmp_path / "regret.png")
    figures.draw_gradients(record, tmp_path / "gradients.png")
    figures.draw_linear(record, tmp_path / "linear.png")
    for name in ("regret.png", "gradients.png", "linear.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
