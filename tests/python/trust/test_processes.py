"""T5 and T7: threads, forks, workers, replicas and distributed training."""

import multiprocessing
import os
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.multiprocessing as spawner
from contract import MODES, D, all_nine, assert_same
from torch.utils.data import DataLoader, Dataset

import torchqp
from torchqp import Projection, testing


def test_T5_eight_threads_with_different_sizes_give_the_bits_of_one() -> None:
    jobs = [(n, mode) for n in (3, 6, 9, 14, 20, 33) for mode in MODES] * 3
    problems = {n: all_nine(5, n) for n, _ in jobs}

    def run(job: tuple[int, str]) -> tuple:
        n, mode = job
        return testing.pullback(torchqp.solve_qp, problems[n], 0, backward=mode)

    expected = {job: run(job) for job in set(jobs)}
    with ThreadPoolExecutor(8) as pool:
        for job, found in zip(jobs, pool.map(run, jobs), strict=True):
            assert_same(found[0], expected[job][0], where=str(job))
            assert_same(found[1], expected[job][1], where=str(job))


def test_T5_other_threads_run_during_a_solve() -> None:
    """The interpreter lock is free: a counter in Python goes on while a solve takes its time."""
    torch.set_num_threads(1)
    n = 120
    G = torch.randn(16, 2 * n, n, dtype=D)
    problem = {"Q": torch.eye(n, dtype=D), "q": torch.randn(16, n, dtype=D), "G": G, "h": 1.0}
    counted, done = [0], threading.Event()

    def count() -> None:
        while not done.is_set():
            counted[0] += 1
            time.sleep(0.001)

    counter = threading.Thread(target=count)
    counter.start()
    time.sleep(0.01)
    before, start = counted[0], time.monotonic()
    while time.monotonic() - start < 0.2:
        before = counted[0]
        began = time.monotonic()
        torchqp.solve_qp(**problem)
        took, passed = time.monotonic() - began, counted[0] - before
    done.set()
    counter.join()
    assert took > 0.02
    assert passed >= 3


def _child(queue: multiprocessing.Queue) -> None:
    solution, grads = testing.pullback(torchqp.solve_qp, all_nine(70), 0)
    queue.put((solution.z.detach().numpy(), grads["G"].numpy()))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_T5_a_fork_after_use_solves_with_the_same_bits() -> None:
    torch.set_num_threads(2)
    solution, grads = testing.pullback(torchqp.solve_qp, all_nine(70), 0)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    # OpenMP's pool does not survive a fork, torch's own rule: the child uses one thread.
    torch.set_num_threads(1)
    child = context.Process(target=_child, args=(queue,))
    child.start()
    z, G = queue.get(timeout=60)
    child.join(60)
    assert child.exitcode == 0
    assert testing.same_bits(torch.from_numpy(z), solution.z)
    assert testing.same_bits(torch.from_numpy(G), grads["G"])


class Projections(Dataset):
    """Items that are solved where they are loaded."""

    def __len__(self) -> int:  # noqa: D105
        return 12

    def __getitem__(self, i: int) -> torch.Tensor:  # noqa: D105
        w = torch.linspace(-1, 2, 5, dtype=D) + i / 10
        return Projection(A=torch.ones(1, 5, dtype=D), b=1.0, lb=0.0)(w)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_T7_workers_of_a_data_loader_solve_the_same() -> None:
    here = torch.cat(list(DataLoader(Projections(), batch_size=4)))
    there = torch.cat(list(DataLoader(Projections(), batch_size=4, num_workers=2)))
    assert here.shape == (12, 5)
    assert testing.same_bits(here, there)


def _model() -> torch.nn.Module:
    torch.manual_seed(5)
    simplex = Projection(A=torch.ones(1, 4, dtype=D), b=1.0, lb=0.0, backward="smoothed")
    return torch.nn.Sequential(
        torch.nn.Linear(3, 4, dtype=D), torchqp.OptNet(4, 3, 0, dtype=D), simplex
    )


def _loss(model: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    return (model(x) * torch.arange(4, dtype=D)).square().sum(-1).mean()


def _inputs() -> torch.Tensor:
    return torch.randn(8, 3, dtype=D, generator=torch.Generator().manual_seed(1))


def _rank(rank: int, port: int, queue: multiprocessing.Queue) -> None:
    torch.set_num_threads(1)
    address = f"tcp://127.0.0.1:{port}"
    torch.distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    model = torch.nn.parallel.DistributedDataParallel(_model())
    _loss(model, _inputs()[rank::2]).backward()
    if rank == 0:
        queue.put([p.grad.numpy() for p in model.parameters()])
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


@pytest.mark.slow
@pytest.mark.skipif(not torch.distributed.is_available(), reason="needs torch.distributed")
def test_T7_two_distributed_processes_have_the_gradients_of_one() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    queue = spawner.get_context("spawn").Queue()
    ranks = spawner.spawn(_rank, (port, queue), nprocs=2, join=False)
    found = queue.get(timeout=120)
    ranks.join()
    model = _model()
    _loss(model, _inputs()).backward()
    for grad, parameter in zip(found, model.parameters(), strict=True):
        assert testing.relative_error(torch.from_numpy(grad), parameter.grad) <= 1e-12
    assert sum(float(p.grad.abs().max()) > 1e-6 for p in model.parameters()) >= 3


def test_T7_replicas_in_threads_have_the_gradients_of_one() -> None:
    """As DataParallel does: copies of the module, each on its own thread, gradients added."""
    model, x = _model(), _inputs()
    whole = torch.autograd.grad(_loss(model, x), list(model.parameters()))
    results: list = [None, None]

    def work(rank: int) -> None:
        part = _loss(model, x[rank::2])
        results[rank] = torch.autograd.grad(part, list(model.parameters()))

    threads = [threading.Thread(target=work, args=(rank,)) for rank in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for a, b, total in zip(*results, whole, strict=True):
        assert testing.relative_error((a + b) / 2, total) <= 1e-12
