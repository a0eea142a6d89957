"""T4, T6, T8 to T11: autograd, copies, transforms, memory, determinism, interrupts."""

import copy
import gc
import io
import os
import pickle
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from contract import MODES, D, all_nine, assert_same
from torch._subclasses.fake_tensor import FakeTensorMode

import torchqp
from torchqp import LPGD, OptNet, Projection, QPLayer, Settings, Smoothed, testing


@pytest.mark.parametrize("mode", MODES)
def test_T4_backward_twice_gives_the_same_bits_or_torchs_own_error(mode: str) -> None:
    problem, wanted = testing.leaves(all_nine())
    leaves = list(wanted.values())
    loss = torchqp.solve_qp(**problem, backward=mode).z.square().sum()
    first = torch.autograd.grad(loss, leaves, retain_graph=True)
    again = torch.autograd.grad(loss, leaves)
    for a, b in zip(first, again, strict=True):
        assert testing.same_bits(a, b)
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(loss, leaves)


@pytest.mark.parametrize("mode", MODES)
def test_T4_an_argument_written_before_backward_is_torchs_own_error(mode: str) -> None:
    for name in ("Q", "G", "A"):
        problem, wanted = testing.leaves(all_nine())
        problem[name] = wanted[name] * 1.0  # no leaf, so that it may be written
        loss = torchqp.solve_qp(**problem, backward=mode).z.sum()
        problem[name].mul_(2.0)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()
    problem, _ = testing.leaves(all_nine())
    z = torchqp.solve_qp(**problem, backward=mode).z
    loss = z.square().sum()
    with torch.no_grad():
        z.mul_(2.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def layers() -> dict[str, torch.nn.Module]:
    ones = torch.ones(1, 5, dtype=D)
    return {
        "QPLayer": QPLayer(backward=LPGD(tau=0.3), settings=Settings(eps_abs=1e-9)),
        "Projection": Projection(A=ones, b=torch.nn.Parameter(ones[0, :1]), lb=0.0),
        "Smoothed": Projection(G=ones, h=1.0, backward=Smoothed(alpha=0.2)),
        "OptNet": OptNet(5, 4, 1, dtype=D),
    }


@pytest.mark.parametrize("name", list(layers()))
def test_T6_copies_pickles_and_saved_states_are_the_layer(name: str) -> None:
    """Cvxpylayers #150: deepcopy raised KeyError; #101: multiprocessing."""
    layer = layers()[name]
    q = torch.randn(3, 5, dtype=D)
    call = (torch.eye(5, dtype=D), q) if name == "QPLayer" else (q,)
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    loaded = layers()[name]
    loaded.load_state_dict(torch.load(file, weights_only=True))
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), loaded):
        assert testing.same_bits(other(*call), layer(*call))
        assert repr(other) == repr(layer)
    for value in (Settings(eps_rel=1e-7), Smoothed(radius=2.0), LPGD(side="upper")):
        assert pickle.loads(pickle.dumps(value)) == copy.deepcopy(value) == value


def test_T6_solutions_are_saved_as_plain_tensors() -> None:
    solution = torchqp.solve_qp(**all_nine())
    again = pickle.loads(pickle.dumps(solution))
    assert_same(again, solution)
    file = io.BytesIO()
    torch.save(dict(solution._asdict()), file)
    file.seek(0)
    loaded = torch.load(file, weights_only=True)
    assert testing.same_bits(loaded["z"], solution.z)


def test_T8_compiled_whole_with_dynamic_shapes() -> None:
    """The exact mode; test_transforms.py compiles the others."""
    layer = QPLayer()
    compiled = torch.compile(layer, fullgraph=True, dynamic=True, backend="aot_eager")
    for batch in (3, 5):
        problem, wanted = testing.leaves(all_nine(batch))
        leaves = list(wanted.values())
        z = compiled(**problem)
        expected = layer(**problem)
        assert testing.relative_error(z, expected) <= 1e-12
        grads = torch.autograd.grad(z.square().sum(), leaves)
        others = torch.autograd.grad(expected.square().sum(), leaves)
        for a, b in zip(grads, others, strict=True):
            assert testing.relative_error(a, b) <= 1e-10


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
def test_T8_vmap_jacrev_and_fake_tensors() -> None:
    problem = all_nine()
    z = torch.func.vmap(lambda p: torchqp.solve_qp(**p).z)(problem)
    assert testing.same_bits(z, torchqp.solve_qp(**problem).z)
    one = testing.take(problem, 0)
    minimiser = lambda q: torchqp.solve_qp(**(one | {"q": q})).z  # noqa: E731
    jacobian = torch.func.jacrev(minimiser)(one["q"])
    assert testing.relative_error(jacobian, jacobian.mT) <= 1e-9
    smooth = lambda q: torchqp.solve_qp(**(one | {"q": q}), backward="smoothed").z  # noqa: E731
    with pytest.raises(RuntimeError, match="no forward mode"):
        torch.func.jvp(smooth, (one["q"],), (one["q"],))
    with FakeTensorMode() as fake:
        solution = torchqp.solve_qp(**{k: fake.from_tensor(v) for k, v in problem.items()})
    assert solution.z.shape == (4, 6) and solution.residuals.shape == (4, 4)


def resident() -> int:
    """Bytes of this process in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc/self/statm")
@pytest.mark.parametrize("mode", MODES)
def test_T9_memory_is_flat_over_2000_loops(mode: str) -> None:
    torch.set_num_threads(1)
    problem, wanted = testing.leaves(all_nine(3))
    bad = problem | {"h": torch.ones(3, 9, dtype=D)}

    def loop(i: int) -> None:
        if i % 4 == 0:
            with torch.no_grad():
                torchqp.solve_qp(**problem)
        elif i % 4 == 1:
            with pytest.raises(ValueError, match=r"^h: expected"):
                torchqp.solve_qp(**bad)
        torchqp.solve_qp(**problem, backward=mode).z.square().sum().backward()
        for leaf in wanted.values():
            leaf.grad = None

    def growth(loops: int) -> tuple[int, int]:
        before, objects = resident(), len(gc.get_objects())
        for i in range(loops):
            loop(i)
        gc.collect()
        return resident() - before, len(gc.get_objects()) - objects

    growth(200)
    size, objects = growth(2000)
    if size >= 2**20:  # the allocator's own, after other tests; a leak would come again
        size, objects = growth(2000)
    assert size < 2**20
    assert objects < 200


@pytest.mark.parametrize("mode", MODES)
def test_T10_deterministic_and_filled_memory_change_no_bit(mode: str) -> None:
    """Memory that is filled with NaN before use shows what is read before it is written."""
    problem = all_nine(9)
    problem["q"][3, 0] = torch.nan
    plain = testing.pullback(torchqp.solve_qp, problem, 0, backward=mode)
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    try:
        found = testing.pullback(torchqp.solve_qp, problem, 0, backward=mode)
    finally:
        torch.use_deterministic_algorithms(False)
    assert_same(found[0], plain[0])
    assert_same(found[1], plain[1])
    assert all(bool(grad.isfinite().all()) for grad in found[1].values())


def test_T11_thread_counts_between_calls_change_no_bit() -> None:
    problem = all_nine(90)
    base = testing.pullback(torchqp.solve_qp, problem, 0)
    for threads in (1, 2, 3, 4, 8, 1):
        torch.set_num_threads(threads)
        found = testing.pullback(torchqp.solve_qp, problem, 0)
        assert_same(found[0], base[0], where=f"{threads} threads")
        assert_same(found[1], base[1], where=f"{threads} threads")


def test_T11_an_interrupt_during_a_long_solve_ends_the_program_cleanly() -> None:
    script = """
        import signal, torch, torchqp
        signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored below a background shell
        torch.set_num_threads(1)
        q = torch.randn(60, 60, dtype=torch.float64)
        G = torch.randn(60, 120, 60, dtype=torch.float64)
        try:
            print("ready", flush=True)
            while True:
                torchqp.solve_qp(torch.eye(60).double(), q, G, torch.ones(120).double())
        except KeyboardInterrupt:
            z = torchqp.solve_qp(torch.eye(2), torch.ones(2)).z
            print("clean", z.tolist(), flush=True)
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        try:
            out, _ = process.communicate(timeout=60)
        finally:
            process.kill()  # where it did not end by itself, leaving this block would wait for it
    assert (process.returncode, out) == (0, "clean [-1.0, -1.0]\n")
