"""The denoising experiment at its smallest: data, total variation as a QP, and learning from it."""

import pytest
import torch

from experiments.common import Protocol
from experiments.denoising import data, figures, models, run

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def signals() -> data.Signals:
    return data.load()


@pytest.fixture(scope="module")
def records() -> dict[str, dict]:
    few = Protocol(epochs=1, batch_size=50, lr=1e-3)
    slow = Protocol(epochs=3, batch_size=50, lr=1e-4)
    fast = Protocol(epochs=1, batch_size=50, lr=1e-2)
    runs = [
        run.Run(run.TV, 21.0, signals=50, judged=50),
        run.Run(run.TV, 60.0, signals=50, judged=50),
        run.Run(run.FC, 100, 0, few, signals=600, judged=50),
        run.Run(run.PURE, 0.01, 0, fast, signals=200, judged=50),
        run.Run(run.TUNED, run.TUNED_LAM, 0, slow, signals=300, judged=50),
    ]
    return {f"{r.method} {r.option:g}": run.execute(r) for r in runs}


def test_signals_are_drawn_as_described(signals):
    jumps = (signals.clean.diff(dim=-1) != 0).sum(-1)
    assert jumps.max() <= 8
    assert signals.clean.min() >= 10
    assert signals.clean.max() < 100
    noise = signals.noisy[signals.test] - signals.clean[signals.test]
    assert noise.square().mean().item() == pytest.approx(99.775, abs=1e-3)
    assert len(torch.cat([signals.train, signals.validation, signals.test]).unique()) == 10_000


def test_numpy_that_draws_other_numbers_is_refused(monkeypatch):
    data.load.cache_clear()
    monkeypatch.setitem(data.SHA256, "clean", "0" * 64)
    with pytest.raises(ValueError, match="clean: expected SHA-256 000"):
        data.load()
    data.load.cache_clear()


def test_tuned_layer_starts_as_total_variation(signals):
    torch.manual_seed(0)
    noisy = signals.noisy[:20]
    tuned = models.TunedOptNet(data.LENGTH, lam=21.21)
    with torch.no_grad():
        tuned.linear.weight[: data.LENGTH] = -torch.eye(data.LENGTH)
        tuned.linear.weight[data.LENGTH :] = 0.0
        by_primal = tuned(noisy)
        by_dual = models.TotalVariation(data.LENGTH, 21.21)(noisy)
    # EPS in Q shrinks the primal by a factor of 1e-4; signals are below 130
    torch.testing.assert_close(by_primal, by_dual, atol=0.05, rtol=0)
    assert (by_primal - noisy).abs().max() > 10


def test_total_variation_denoises_and_lam_matters(records):
    assert records["TV 21"]["test"] == pytest.approx(14.2113, abs=1e-3)
    assert records["TV 60"]["test"] > 1.5 * records["TV 21"]["test"]


def test_layers_learn(records):
    tuned = records["tuned OptNet 21.21"]["curves"]
    assert tuned["train"][-1] < tuned["train"][0] - 0.2
    pure = records["pure OptNet 0.01"]["curves"]
    assert pure["train"][1] < 0.8 * pure["train"][0]
    assert records["FC 100"]["curves"]["train"][1] < records["FC 100"]["curves"]["train"][0]


def test_results_become_table_and_figure(records, tmp_path):
    runs = list(records.values())
    assert run.chosen(runs, run.TV) == [records["TV 21"]]
    assert "| tuned OptNet | 21.21 |" in run.table(runs)
    figures.draw({"runs": runs}, tmp_path / "denoising.png")
    assert (tmp_path / "denoising.png").stat().st_size > 10_000
