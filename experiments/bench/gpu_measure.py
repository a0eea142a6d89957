"""One case on a GPU: time by the device's clock and by the host's, memory, residual, gradients.

    python experiments/bench/gpu_measure.py --layers torchqp --cases 10,10,0,100000 --out FILE

measures some rows in this process; gpu.py starts it once for each group of rows.
"""

from __future__ import annotations

if __name__ == "__main__":
    from pinned import allowed, pin

    pin(default=len(allowed()))

import argparse
import contextlib
import gc
import io
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

import torchqp
from experiments.bench import suite
from experiments.bench.gpu_adapters import ROWS, Row
from experiments.bench.layer import Layer, Size
from experiments.bench.problems import (
    PARAMETERS,
    REGULAR_MARGIN,
    Problem,
    gradient_errors,
    kkt_parts,
    optnet,
    shared_matrices,
)
from experiments.bench.timing import guarded, statistics
from experiments.common.record import write_json

SETS = 3  # sets of inputs that calls take in turn, so that no cache holds all of one
WARM_CALLS, MIN_CALLS, MAX_CALLS = 5, 3, 60
LONG_CALL = 10.0  # a row whose call takes longer is left out of the case
FAILURE = {torch.float64: 1e-6, torch.float32: 1e-3}  # a member above this residual has failed
TUNED = 1e-8  # what the first sufficient setting of a tuned row reaches
MATRICES = ("Q", "G", "A")
COLUMNS = ("forward", "forward_backward")


class GpuCase(NamedTuple):
    """Sizes, and whether all members have the same Q, G and A."""

    n: int
    m: int
    p: int
    batch: int
    shared: bool

    def __str__(self) -> str:
        """As it is written on the command line; the key of its record."""
        return suite.name(self[:4]) + (",shared" if self.shared else "")


def gpu_case(text: str) -> GpuCase:
    """Reads ``n,m,p,B`` or ``n,m,p,B,shared``."""
    return GpuCase(*suite.case(text.removesuffix(",shared")), text.endswith(",shared"))


def problem(case: GpuCase, seed: int, folder: Path | None) -> Problem:
    """A set of inputs in host memory, kept in a folder for the other processes."""
    path = folder / f"{case}-{seed}.pt" if folder else None
    if path and path.exists():
        return Problem(**torch.load(path))
    made = optnet(*case[:4], seed=seed)
    made = shared_matrices(made, seed) if case.shared else made
    if path:
        torch.save(vars(made), path)
    return made


def synchronize(device: str) -> None:
    """Waits for all streams of the device."""
    if device != "cpu":
        torch.cuda.synchronize()


class Subject:
    """A layer in a case, and its calls on each set of inputs."""

    def __init__(self, name: str, layer: Layer, case: GpuCase, sets: list[Problem]) -> None:
        """Prepares the arguments: in its dtype, Q, G and A 2-D if they are shared and it can."""
        self.row, self.layer, self.problem = ROWS[name], layer, sets[0]
        self.device = str(sets[0].q.device.type)
        self.two_d = case.shared and self.row.shares
        dtype = self.row.adapter.dtype
        self.data, self.leaves, self.weights = [], [], []
        for each in sets:
            values = dict(zip(PARAMETERS, each.arguments(), strict=True))
            data = [
                None if v is None else (v[0] if self.two_d and k in MATRICES else v).to(dtype)
                for k, v in values.items()
            ]
            self.data.append(data)
            # Leaves of their own on the same memory.
            self.leaves.append([None if v is None else v.detach().requires_grad_() for v in data])
            self.weights.append(each.weight.to(dtype))

    def forward(self, i: int) -> torch.Tensor:
        with torch.no_grad():
            return self.layer.solve(*self.data[i])

    def forward_backward(self, i: int, weight: torch.Tensor | None = None) -> dict[str, Any]:
        """Forward, and the gradients of w'z for all parameters."""
        z = self.layer.solve(*self.leaves[i])
        inputs = [v for v in self.leaves[i] if v is not None]
        chosen = self.weights[i] if weight is None else weight
        gradients = torch.autograd.grad(z, inputs, chosen.to(z))
        return dict(zip(PARAMETERS, gradients, strict=False))

    def call(self, column: str) -> Callable[[int], Any]:
        return self.forward if column == "forward" else self.forward_backward


def by_events(call: Callable[[int], Any], count: int) -> list[float]:
    """Seconds of each call on the device, the calls queued one behind the other."""
    pairs = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(count)]
    for i, (start, stop) in enumerate(pairs):
        start.record()
        call(i % SETS)
        stop.record()
    torch.cuda.synchronize()
    return [1e-3 * start.elapsed_time(stop) for start, stop in pairs]


def by_host(call: Callable[[int], Any], count: int, device: str) -> list[float]:
    """Seconds from calling until the device is done, of one call after the other."""
    seconds = []
    for i in range(count):
        synchronize(device)
        start = time.perf_counter()
        call(i % SETS)
        synchronize(device)
        seconds.append(time.perf_counter() - start)
    return seconds


def memory(call: Callable[[int], Any], device: str) -> float | None:
    """MiB that one call takes from torch's allocator on top of what is there."""
    if device == "cpu":
        return None
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    call(0)
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def timed(subject: Subject, options: argparse.Namespace) -> dict[str, Any]:
    """Both columns by both clocks, and memory.

    Raises:
        TimeoutError: a call takes longer than LONG_CALL.
    """
    result: dict[str, Any] = {"memory_mib": {}}
    for column in COLUMNS:
        call = subject.call(column)
        first = by_host(call, 1, subject.device)[0]  # what is compiled or loaded, with it
        cost = min(by_host(call, 1 if first > LONG_CALL / 5 else WARM_CALLS, subject.device))
        if cost > LONG_CALL:
            raise TimeoutError(f"{cost:.1f} s a call")
        result["memory_mib"][column] = memory(call, subject.device)
        count = options.rounds or max(MIN_CALLS, min(MAX_CALLS, int(options.seconds / cost)))
        on_device = subject.device != "cpu" and subject.row.clock == "events"
        host = by_host(call, math.ceil(count / 3) if on_device else count, subject.device)
        result[f"{column}_ms"] = statistics(by_events(call, count) if on_device else host, 1e-3)
        result[f"{column}_host_ms"] = {
            k: v for k, v in statistics(host, 1e-3).items() if k != "all"
        }
    return result


@dataclass(frozen=True)
class Sample:
    """The CPU path's answer for the first members: z, gradients, and which are compared."""

    z: np.ndarray
    gradients: dict[str, np.ndarray]
    regular: np.ndarray


def sample(problem: Problem) -> Sample:
    """Solves up to 64 members with torchqp on the CPU, in float64."""
    n = problem.q.shape[1]
    head = problem.head(min(64, max(4, 6400 // n))).to("cpu")
    leaves = [None if v is None else v.clone().requires_grad_() for v in head.arguments()]
    solution = torchqp.solve_qp(*leaves)  # type: ignore[arg-type]
    inputs = [v for v in leaves if v is not None]
    gradients = torch.autograd.grad(solution.z, inputs, head.weight)
    margin = torch.maximum(solution.lam, solution.s).amin(dim=1)
    regular = (margin >= REGULAR_MARGIN) & (solution.status == 0)
    named = {k: g.numpy() for k, g in zip(PARAMETERS, gradients, strict=False)}
    return Sample(solution.z.detach().numpy(), named, regular.numpy())


def gradient_error(subject: Subject, gradients: dict[str, Any], cpu: Sample) -> dict[str, Any]:
    """Median and worst error over the sample's regular members; of their sum for shared data."""
    regular = cpu.regular
    if not subject.two_d:
        found = {k: g[: len(regular)].double().cpu().numpy() for k, g in gradients.items()}
        errors = gradient_errors(found, cpu.gradients, len(regular))["all"][regular]
    else:
        # With weight on these members alone, the sum over the batch is the sum over them.
        weight = torch.zeros_like(subject.weights[0])
        chosen = torch.from_numpy(np.flatnonzero(regular)).to(weight.device)
        weight[chosen] = subject.weights[0][chosen]
        total = subject.forward_backward(0, weight)
        found = {
            k: (g if k in MATRICES else g[chosen].flatten()).double().cpu().numpy()[None]
            for k, g in total.items()
        }
        exact = {
            k: g[regular].sum(axis=0)[None] if k in MATRICES else g[regular].reshape(1, -1)
            for k, g in cpu.gradients.items()
        }
        errors = gradient_errors(found, exact, 1)["all"]
    if errors.size == 0:
        return {"median": None, "worst": None, "of": 0}
    told = {"median": float(np.median(errors)), "worst": float(np.max(errors))}
    return {**told, "of": int(regular.sum())}


def judged(subject: Subject, cpu: Sample) -> dict[str, Any]:
    """Residuals of every member, failures, and distances from the CPU path on its sample."""
    with contextlib.redirect_stdout(io.StringIO()):
        z, nu, lam = subject.layer.detail(*subject.data[0])
    parts = kkt_parts(subject.problem, z, nu, lam)
    residual = torch.stack(list(parts.values())).amax(dim=0)
    failed = ~(residual <= FAILURE[subject.row.adapter.dtype])
    gradients = subject.forward_backward(0)
    for name, value in gradients.items():
        if not (subject.two_d and name in MATRICES):
            failed |= ~value.flatten(1).isfinite().all(dim=1)
    count = len(cpu.z)
    distance = np.abs(z[:count] - cpu.z).max(axis=1) / (1 + np.abs(cpu.z).max(axis=1))
    return {
        "residual_median": float(residual.nanmedian()),
        "residual_worst": float(residual.max()),
        "residual_parts": {name: float(part.max()) for name, part in parts.items()},
        "failures": int(failed.sum()),
        "z_error_worst": float(distance.max()),
        "gradient_error": gradient_error(subject, gradients, cpu),
    }


def build(name: str, size: Size, case: GpuCase, sets: list[Problem]) -> Subject:
    """The row's layer; of a tuned row the first that is exact enough, or the last."""
    row: Row = ROWS[name]
    for maker in row.tuned or (row.adapter.build,):
        subject = Subject(name, maker(size), case, sets)
        if not row.tuned:
            return subject
        parts = kkt_parts(sets[0], *subject.layer.detail(*subject.data[0]))
        if all(bool((part <= TUNED).all()) for part in parts.values()):
            break
    return subject


def measure(
    name: str, case: GpuCase, sets: list[Problem], cpu: Sample, options: argparse.Namespace
) -> dict[str, Any]:
    """The record of one row in one case.

    Raises:
        RuntimeError: the row refuses the case.
    """
    row, device = ROWS[name], options.device
    size = Size(*case[:4], options.threads, device=device)
    refused = row.adapter.refuses(size)
    if refused:
        raise RuntimeError(refused)
    free = torch.cuda.mem_get_info()[0] if device != "cpu" else 0
    start = time.perf_counter()
    subject = build(name, size, case, sets)
    subject.forward(0)
    synchronize(device)
    seconds = time.perf_counter() - start
    result = {
        "clock": row.clock if device != "cpu" else "host",
        "dtype": str(row.adapter.dtype).removeprefix("torch."),
        "settings": subject.layer.settings,
        "shares": subject.two_d,
        "build_seconds": seconds,
        **subject.layer.extra(),
        **timed(subject, options),
        **judged(subject, cpu),
    }
    if device != "cpu":  # with what other allocators than torch's hold
        result["device_mib"] = max(0.0, (free - torch.cuda.mem_get_info()[0]) / 2**20)
    return result


def cases(options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """All rows in all cases; written to ``--out`` after each, since a process may be stopped."""
    found: dict[str, dict[str, Any]] = {}
    for case in options.cases:
        told: dict[str, Any] = {"layers": {}, "left_out": {}}
        found[str(case)] = told
        hosts = [problem(case, options.seed + i, options.data) for i in range(SETS)]
        cpu, sets = sample(hosts[0]), [each.to(options.device) for each in hosts]
        for name in options.layers:
            print(f"  {case}: {name}", flush=True)

            def run(name: str = name) -> None:
                told["layers"][name] = measure(name, case, sets, cpu, options)  # noqa: B023

            failed = guarded(run)
            if failed:
                told["left_out"][name] = failed
            gc.collect()
            if options.device != "cpu":
                guarded(torch.cuda.empty_cache)  # fails where the row has broken the context
            if options.out:
                write_json(options.out, suite.significant(found))
    return found


def main(arguments: list[str] | None = None) -> None:
    parser = suite.parser(__doc__, budget=1.0, threads=torch.get_num_threads())
    parser.add_argument("--cases", nargs="+", type=gpu_case, required=True)
    parser.add_argument("--layers", nargs="+", choices=list(ROWS), required=True)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--data", type=Path, help="folder of problems that were made already")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    cases(options)


if __name__ == "__main__":
    main()
