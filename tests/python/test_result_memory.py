"""Memory of results on the CPU: what is freed serves later results of the same size."""

import gc
import io
import subprocess
import sys
import threading

import pytest
import torch

import torchqp

MIB = 1 << 20


def large_problem(n=32, batch=512):
    """Arguments of solve_qp; every vector of the results is large enough to be kept."""
    torch.manual_seed(0)
    G, z = torch.randn(batch, n, n), torch.randn(batch, n)
    h = (G @ z.unsqueeze(-1)).squeeze(-1) + torch.rand(batch, n)
    return [t.double() for t in (torch.eye(n).repeat(batch, 1, 1), torch.randn(batch, n), G, h)]


def gradients(args):
    """Gradients of all arguments."""
    leaves = [a.clone().requires_grad_() for a in args]
    return torch.autograd.grad(torchqp.solve_qp(*leaves).z.sin().sum(), leaves)


@pytest.fixture(autouse=True)
def _collected():
    gc.collect()


def test_a_freed_result_serves_the_next_of_its_size_and_a_live_one_never():
    args = large_problem(batch=517)  # a size that no other test leaves behind
    first = torchqp.solve_qp(*args)
    live, gone = first.z, first.lam.data_ptr()
    values = live.clone()
    del first
    # They would take the place that torch's allocator had got back.
    others = [torch.empty_like(values) for _ in range(8)]
    assert gone not in {t.data_ptr() for t in others}
    second = torchqp.solve_qp(*args)
    places = {t.data_ptr() for t in (second.z, second.lam, second.s)}
    assert gone in places
    assert live.data_ptr() not in places
    second.z.fill_(torch.nan)
    assert torch.equal(live, values)


def test_results_do_not_depend_on_what_lay_in_their_memory():
    args = large_problem()
    first = gradients(args)
    kept = [t.clone() for t in first]
    for t in first:
        t.fill_(torch.nan)
    del first, t
    for one, other in zip(gradients(args), kept, strict=True):
        assert torch.equal(one, other)


def test_results_that_other_threads_free_serve_all():
    args = large_problem()
    expected = gradients(args)
    wrong = []

    def work():
        for _ in range(20):
            mine = gradients(args)
            if not all(torch.equal(a, b) for a, b in zip(mine, expected, strict=True)):
                wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_result_can_be_resized_pickled_and_outlive_everything():
    z = torchqp.solve_qp(*large_problem()).z
    values = z.clone()
    z.resize_(2 * z.shape[0], z.shape[1])
    assert torch.equal(z[: len(values)], values)
    file = io.BytesIO()
    torch.save(torchqp.solve_qp(*large_problem()).z, file)
    file.seek(0)
    assert torch.equal(torch.load(file), values)
    program = (
        "import torch, torchqp, builtins\n"
        "eye = torch.eye(32).expand(512, 32, 32)\n"
        "builtins.kept = torchqp.solve_qp(eye, torch.ones(512, 32)).z\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_little_is_kept_of_sizes_that_do_not_come_again():
    """Of results of 360 MiB together, each of a size of its own, at most 64 MiB stay."""
    program = f"""
import resource, torch, torchqp
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()
def solve(batch):
    q = torch.ones(64, dtype=torch.float64).expand(batch, 64)
    return torchqp.solve_qp(torchqp.Diag(torch.ones(64, dtype=torch.float64)), q).z.nbytes
solve(1000)
before = resident()
made = sum(solve(batch) for batch in range(70_000, 110_000, 5_000))
grown = (resident() - before) / {MIB}
assert made > 340 * {MIB}, made
assert grown < 64 + 16, grown  # and what else a first large call leaves behind
"""
    subprocess.run([sys.executable, "-c", program], check=True)
