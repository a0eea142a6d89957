"""The benchmark of a GPU, tried without one: every part runs, and what it writes is consistent."""

import importlib.util
import json
import math
import sys

import numpy as np
import pytest
import torch

import torchqp
from experiments.bench import (
    figures,
    gpu,
    gpu_measure,
    gpu_occupancy,
    peer_layers,
    tables,
    torch_ipm,
)
from experiments.bench.gpu_adapters import GROUPS, ROWS, of_group
from experiments.bench.gpu_measure import COLUMNS, GpuCase, gpu_case
from experiments.bench.problems import (
    PARAMETERS,
    gradient_errors,
    kkt_parts,
    kkt_residual,
    optnet,
    reference,
    shared_matrices,
)

QUICK = ["torchqp", "torchqp-float32", "torch-ipm"]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    """What a smoke run writes, with one row that cannot be built."""
    out = tmp_path_factory.mktemp("gpu") / "gpu.json"
    options = ["--device", "cpu", "--smoke", "--rounds", "4", "--out", str(out)]
    assert gpu.main([*options, "--layers", *QUICK, "cupiqp"]) == 0
    return json.loads(out.read_text())


def exact(problem):
    s = torchqp.solve_qp(*problem.arguments())
    return reference(problem, (s.lam > s.s).numpy())


@pytest.mark.parametrize("size", [(6, 6, 2, 32), (10, 10, 0, 64), (20, 20, 5, 16)])
def test_torch_operations_solve_and_differentiate(size):
    problem = optnet(*size)
    Q, q, G, h, A, b = problem.arguments()
    answer = torch_ipm.solve(torch_ipm.reduce(Q, G, A), q, G, h, b)
    z, nu, lam = (np.zeros((size[3], 0)) if v is None else v.numpy() for v in answer[:3])
    assert kkt_residual(problem, z, nu, lam).max() < 1e-10
    leaves = [v.clone().requires_grad_() for v in problem.arguments() if v is not None]
    found = torch.autograd.grad(torch_ipm.solve_qp(*leaves), leaves, problem.weight)
    named = {k: g.numpy() for k, g in zip(PARAMETERS, found, strict=False)}
    right = exact(problem)
    errors = gradient_errors(named, right.gradients, size[3])["all"][right.regular]
    assert np.median(errors) < 1e-9
    assert errors.max() < 1e-5  # close to a kink an interior point is less exact


def test_torch_operations_sum_the_gradients_of_shared_matrices():
    problem = shared_matrices(optnet(6, 5, 2, 16))
    both = []
    for shared in (False, True):
        leaves = [
            (v[0] if shared and v.dim() == 3 else v).clone().requires_grad_()
            for v in problem.arguments()
        ]
        z = torch_ipm.solve_qp(*leaves)
        both.append((z, torch.autograd.grad(z, leaves, problem.weight)))
    (z, apart), (z_shared, summed) = both
    torch.testing.assert_close(z_shared, z)
    for name, each, total in zip(PARAMETERS, apart, summed, strict=True):
        expected = each.sum(dim=0) if name in ("Q", "G", "A") else each
        torch.testing.assert_close(total, expected, rtol=1e-6, atol=1e-9)


def test_every_row_belongs_to_one_group():
    names = [name for group in GROUPS for name in of_group(group, list(ROWS))]
    assert sorted(names) == sorted(ROWS)
    assert set(GROUPS) == set(gpu.LIMITS)
    assert all(str(gpu_case(case)) == case for case in (*gpu.GRID, *gpu.SMOKE))
    assert {gpu.OPTNET, *gpu.LATENCY} <= set(gpu.GRID)


def test_times_accuracy_and_ratios_agree(record):
    assert [case["case"] for case in record["cases"]] == list(gpu.SMOKE)
    for case in record["cases"]:
        layers = case["layers"]
        assert list(layers) == QUICK
        assert "cupiqp" in case["left_out"]
        for name, row in layers.items():
            assert row["failures"] == 0, name
            assert row["residual_worst"] == max(row["residual_parts"].values())
            assert row["residual_worst"] < (1e-8 if row["dtype"] == "float64" else 1e-3)
            assert row["z_error_worst"] < (1e-8 if row["dtype"] == "float64" else 1e-2)
            assert row["gradient_error"]["of"] > 0
            assert row["gradient_error"]["worst"] < (1e-6 if row["dtype"] == "float64" else 1e-2)
            assert row["shares"] == case["shared"]
            for column in COLUMNS:
                time = row[f"{column}_ms"]
                assert (time["rounds"], len(time["all"])) == (4, 4)
                assert time["median"] == pytest.approx(np.median(time["all"]), rel=1e-3)
                assert 0 < time["min"] <= time["median"] <= time["p95"] <= time["max"]
        for column in COLUMNS:
            times = (layers[name][f"{column}_host_ms"] for name in ("torch-ipm", "torchqp"))
            peer, ours = (time["median"] for time in times)
            assert case["ratios"]["torch-ipm"][column] == pytest.approx(peer / ours, rel=1e-3)
        ours = layers["torchqp"]
        assert ours["forward_backward_ms"]["min"] > ours["forward_ms"]["min"]
        assert "torchqp-float32" not in case["ratios"]


def test_targets_say_what_holds_and_what_was_not_measured():
    def row(forward, total, dtype="float64", residual=1e-9):
        told = {"dtype": dtype, "clock": "events", "residual_median": residual}
        for column, ms in zip(COLUMNS, (forward, total), strict=True):
            told[f"{column}_ms"] = told[f"{column}_host_ms"] = {"median": ms}
        return told

    layers = {"torchqp": row(0.5, 0.7), "qpth": row(30.0, 21.0), "cupiqp": row(1.0, 0.6)}
    layers["wrong"] = row(0.1, 0.1, residual=0.5)
    case = {"case": gpu.OPTNET, "n": 100, "layers": layers, "ratios": gpu.ratios(layers)}
    assert set(case["ratios"]) == {"qpth", "cupiqp"}
    found = {target["what"]: target for target in gpu.targets(case)}
    told = {what: (t["met"], round(t["value"], 6)) for what, t in found.items()}
    assert told == {
        "forward, ms, at most": (True, 0.5),
        "forward + backward / forward, at most": (False, 1.4),
        "qpth / torchqp, forward, at least": (True, 60.0),
        "qpth / torchqp, forward + backward, at least": (False, 30.0),
        "cupiqp / torchqp, forward, at least": (True, 2.0),
        "cupiqp / torchqp, forward + backward, at least": (False, 0.857143),
    }
    absent = {**case, "ratios": {}}
    assert {t["met"] for t in gpu.targets(absent)} == {True, False, None}
    assert gpu.targets({**case, "layers": {}}) == []
    latency = {**case, "case": "10,10,0,1", "n": 10}
    assert "forward from Python, ms, at most" in {t["what"] for t in gpu.targets(latency)}


def test_a_wrong_gradient_and_a_wrong_multiplier_are_seen():
    case = GpuCase(6, 6, 0, 80, shared=True)  # more members than the sample has
    problem = gpu_measure.problem(case, 0, None)
    size = gpu_measure.Size(6, 6, 0, 80, threads=1)
    layer = ROWS["torchqp"].adapter.build(size)
    cpu = gpu_measure.sample(problem)
    assert 0 < cpu.regular.sum() <= len(cpu.regular) == 64
    subject = gpu_measure.Subject("torchqp", layer, case, [problem])
    assert gpu_measure.judged(subject, cpu)["gradient_error"]["worst"] < 1e-9
    cpu.gradients["G"][:] *= 1.01
    assert gpu_measure.judged(subject, cpu)["gradient_error"]["worst"] == pytest.approx(0.01, 0.05)
    z, nu, lam = layer.detail(*subject.data[0])
    parts = kkt_parts(problem, z, nu, lam - 1e-3)
    assert parts["stationarity"].max() > 1e-5
    assert parts["sign"].max() > 1e-5
    assert parts["primal"].max() < 1e-12


def test_problems_come_from_the_folder_once_they_are_there(tmp_path):
    case = GpuCase(4, 3, 1, 2, shared=False)
    made = gpu_measure.problem(case, 0, tmp_path)
    kept = gpu_measure.problem(case, 0, tmp_path)
    assert len(list(tmp_path.iterdir())) == 1
    for name in PARAMETERS:
        assert torch.equal(getattr(made, name), getattr(kept, name))
        assert torch.equal(getattr(made, name), getattr(optnet(4, 3, 1, 2), name))


def test_a_group_whose_time_is_up_keeps_what_it_had(tmp_path, monkeypatch):
    case = gpu_case("4,4,0,2")
    options = {"cases": [case], "device": "cpu", "threads": 1, "seed": 0, "seconds": 0.1}
    options = gpu.argparse.Namespace(**options, rounds=2)
    (tmp_path / "qpth.json").write_text('{"4,4,0,2": {"layers": {"qpth": 1}, "left_out": {}}}')

    def slow(command, timeout):
        raise gpu.subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(gpu.subprocess, "run", slow)
    told = gpu.elsewhere(["qpth", "qpth-tuned"], options, tmp_path, 3.0)["4,4,0,2"]
    assert told["layers"] == {"qpth": 1}
    assert told["left_out"] == {"qpth-tuned": "not reached in the 3 s of its group"}


def test_a_package_that_is_imported_for_nothing_need_not_be_there():
    name = "torchqp_no_such_package"
    with peer_layers._placeholder(name):
        assert importlib.import_module(name) is sys.modules[name]
    assert name not in sys.modules
    with peer_layers._placeholder("json"):
        assert importlib.import_module("json") is json


def test_limits_are_by_group():
    assert gpu.limit_of("cupiqp=200") == ("cupiqp", 200.0)
    with pytest.raises(gpu.argparse.ArgumentTypeError, match="choose from torchqp, torch"):
        gpu.limit_of("nobody=1")


def test_figure_of_the_gpu(record, tmp_path):
    figures.against_case(record, tmp_path / "gpu.png")
    assert (tmp_path / "gpu.png").read_bytes().startswith(b"\x89PNG")


def test_table_of_the_gpu(record):
    record["gpu"]["name"] = "NVIDIA Example"
    record["cases"][0]["targets"] = [
        {"what": "forward, ms, at most", "target": 1.0, "value": 0.5, "met": True},
        {"what": "qpth / torchqp, forward, at least", "target": 40.0, "value": None, "met": None},
    ]
    assert "NVIDIA Example" in tables.origin(record)
    text = "\n".join(tables.gpu(record))
    row = record["cases"][0]["layers"]["torchqp"]
    pair = " / ".join(tables.number(row[f"{c}_ms"]["median"]) for c in COLUMNS)
    assert f"| 6,6,2,8 | {pair} |" in text
    assert "forward, ms, at most" in text
    assert "not measured" in text
    assert math.isfinite(record["cases"][0]["ratios"]["torch-ipm"]["forward"])
    assert "cupiqp at 6,6,2,8" in text


def test_the_blocks_of_a_multiprocessor_are_bounded_by_what_is_short():
    device = {"multiprocessors": 132, "threads": 2048, "registers": 65536, "shared": 233472}
    warp, block = {"lanes": 8, "teams": 4}, {"lanes": 256, "teams": 1}
    cases = [
        (warp, 1000, 255, 8),  # two warps with 256 registers a scheduler
        (warp, 1000, 200, 8),  # ten by the sum, but each scheduler has its own
        (warp, 1000, 32, 32),  # blocks
        (warp, 50_000, 32, 4),  # shared memory
        (block, 1000, 255, 1),
        (block, 1000, 32, 8),  # threads
    ]
    for plan, shared, registers, expected in cases:
        kernel = {"registers": registers, "shared": 1024}
        plan = plan | {"shared_bytes": shared}
        assert gpu_occupancy.resident_blocks(plan, kernel, device) == expected


def test_the_floor_of_a_target_is_arithmetic_or_memory():
    assert gpu_occupancy.problem_bytes(10, 10, 0) == 2000
    device = {"multiprocessors": 132, "threads": 2048, "registers": 65536, "shared": 233472}
    kernel = {"registers": 255, "shared": 1024}
    names = ("solve_kernel<NarrowTeam", "finish_kernel<WideTeam")
    usage = {f"{name}, double, double>": kernel for name in names}
    plan = {"teams": 4, "lanes": 8, "wide": False, "blocks": 1000, "shared_bytes": 40_000}
    plan["libraries"] = False
    wide = {"teams": 1, "lanes": 256, "wide": True, "blocks": 64, "shared_bytes": 40_000}
    wide["libraries"] = True
    plans = [plan | {"case": "10,10,0,100000"}, wide | {"case": "500,500,100,64"}]
    rows = gpu_occupancy.lines(usage, {"device": device, "plans": plans})
    assert [len(row) for row in rows] == [len(gpu_occupancy.HEAD)] * 2
    small, large = (dict(zip(gpu_occupancy.HEAD, row, strict=True)) for row in rows)
    assert (small["set-up"], large["set-up"]) == ("team", "libraries")
    assert (small["teams / MP"], small["warps / MP"], small["occupancy"]) == ("20", "5", "8%")
    assert (small["bound, ms"], small["by"], small["target, ms"]) == ("0.047", "memory", "1")
    assert (large["warps / MP"], large["bound, ms"], large["by"]) == ("8", "1.523", "arithmetic")
