"""Shortest paths beside PyEPO at their smallest: the model, the layer and what they learn."""

import itertools

import numpy as np
import pytest
import torch

import torchqp

pytest.importorskip("pyepo", reason="pip install 'torchqp[experiments]' brings PyEPO")

from experiments.pyepo_grid import methods, run
from experiments.pyepo_grid.paths import FlowLayer, GridModel

pytestmark = pytest.mark.usefixtures("one_thread")


def test_dynamic_programming_finds_the_shortest_of_all_paths():
    model = GridModel((3, 4))
    number = {arc: index for index, arc in enumerate(model.arcs)}
    paths = []
    for souths in itertools.combinations(range(5), 2):
        node, path = 0, []
        for step in range(5):
            head = node + (4 if step in souths else 1)
            if (node, head) not in number:
                break
            path.append(number[node, head])
            node = head
        else:
            paths.append(path)
    assert len(paths) == 10
    for cost in np.random.default_rng(0).standard_normal((20, len(model.arcs))):
        model.setObj(cost)
        arcs, length = model.solve()
        assert length == pytest.approx(min(cost[path].sum() for path in paths))
        assert cost @ arcs == pytest.approx(length)


def test_layer_at_gamma_zero_returns_the_shortest_paths():
    model, train, _ = run.data()
    flows = FlowLayer(model, 0.0, torchqp.LPGD())(train.costs)
    torch.testing.assert_close(flows, train.sols.double(), atol=1e-6, rtol=0)


def test_data_are_split_and_solved():
    _, train, test = run.data()
    assert train.costs.shape == test.costs.shape == (1000, 40)
    assert not set(map(tuple, train.feats.tolist())) & set(map(tuple, test.feats.tolist()))
    assert float(train.objs.mean()) == pytest.approx(3.6322, abs=1e-4)
    assert float(test.objs.mean()) == pytest.approx(3.6467, abs=1e-4)


def test_smoothed_gradients_learn_as_fast_as_spo_plus_and_exact_ones_do_not():
    curves = {
        name: run.execute(run.Run(name, seed=42, epochs=3))["curve"]
        for name in ("SPO+", "smoothed, gamma 0.1", "exact, gamma 0.1")
    }
    assert curves["SPO+"][0] == curves["smoothed, gamma 0.1"][0] > 50.0
    assert curves["smoothed, gamma 0.1"][-1] < 11.0
    assert curves["exact, gamma 0.1"][-1] > 15.0


def test_table_and_figure(tmp_path):
    names = (methods.TWO_STAGE, "SPO+", methods.SHOWN[0])
    runs = [run.execute(run.Run(name, seed=42, epochs=1)) for name in names]
    assert "| SPO+ | " in run.table({"runs": runs})
    assert "| 7.59 | 7.07 | 165 |" in run.table({"runs": runs})
    run.draw({"runs": runs}, tmp_path / "regret.png")
    assert (tmp_path / "regret.png").read_bytes().startswith(b"\x89PNG")
