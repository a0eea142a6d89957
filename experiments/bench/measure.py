"""The measurement behind layers.py: rounds over the layers, error measures, table, JSON."""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib.metadata
import io
import os
import time
import warnings
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

import numpy as np
import torch

from experiments.bench.adapters import ADAPTERS, DEFAULT_LAYERS, Layer, Size
from experiments.bench.problems import (
    DEFAULT_CASES,
    PARAMETERS,
    Problem,
    Reference,
    daqp_active,
    gradient_errors,
    kkt_residual,
    optnet,
    reference,
)
from experiments.common.record import environment, write_json

FAILURE_RESIDUAL = 1e-6  # a member above it counts as failed
CALL_SECONDS = 1.5  # a layer whose cost is linear in the batch gets a batch that takes about this
MEMBER_SECONDS = 5.0  # a layer slower than this for one QP is left out of the case
MIN_ROUNDS, MAX_ROUNDS = 5, 100


@dataclass
class Entry:
    """One layer in one case: what runs, and what it gave."""

    name: str
    layer: Layer
    problem: Problem
    full_batch: int
    backward: bool
    forward: list[float] = field(default_factory=list)
    total: list[float] = field(default_factory=list)
    accuracy: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Sets the arguments of a call without gradients, and of one with."""
        self.data = self.problem.arguments()
        self.leaves = [None if v is None else v.clone().requires_grad_() for v in self.data]

    def run_forward(self) -> torch.Tensor:
        with torch.no_grad():
            return self.layer.solve(*self.data)

    def run_total(self) -> dict[str, torch.Tensor]:
        """Forward, and the gradients of w'z for all parameters."""
        z = self.layer.solve(*self.leaves)
        inputs = [v for v in self.leaves if v is not None]
        gradients = torch.autograd.grad(z, inputs, self.problem.weight.to(z.dtype))
        return dict(zip(PARAMETERS, gradients, strict=False))


def _seconds(call: Any) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _reason(error: BaseException) -> str:
    text = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {text}"[:160]


def _is_fatal(error: BaseException) -> bool:
    """Rust extensions panic with a BaseException that is not an Exception: it is the layer's."""
    return isinstance(error, (KeyboardInterrupt, SystemExit, MemoryError))


def _prepare(name: str, problem: Problem, threads: int) -> Entry | str:
    """Builds and warms up a layer, with a batch cut to CALL_SECONDS; or why it is left out."""
    adapter, batch = ADAPTERS[name], problem.batch
    n, m, p = problem.q.shape[1], problem.h.shape[1], problem.b.shape[1]
    reason = adapter.refuses(Size(n, m, p, batch, threads))
    if reason:
        return reason

    def entry(size: int) -> Entry:
        layer = adapter.build(Size(n, m, p, size, threads))
        return Entry(name, layer, problem.head(size), batch, adapter.backward)

    try:
        if adapter.linear:
            trial = entry(min(4, batch))
            call = trial.run_total if adapter.backward else trial.run_forward
            call()
            cost = min(_seconds(call) for _ in range(2)) / trial.problem.batch
            if cost > MEMBER_SECONDS:
                return f"{cost:.1f} s for one QP"
            batch = max(min(2, batch), min(batch, int(CALL_SECONDS / cost)))
        result = entry(batch)
        result.run_forward()
        return result
    except BaseException as error:
        if _is_fatal(error):
            raise
        return _reason(error)


def _accuracy(entry: Entry, exact: Reference | None) -> dict[str, Any]:
    """Residual of every member, error of the gradients on regular ones, count of failures."""
    z, nu, lam = entry.layer.detail(*entry.data)
    residual = kkt_residual(entry.problem, z, nu, lam)
    failed = ~(residual <= FAILURE_RESIDUAL)
    result: dict[str, Any] = {
        "residual_median": float(np.median(residual)),
        "residual_worst": float(np.max(residual)),
    }
    batch = entry.problem.batch
    if exact is not None:
        known = exact.verified[:batch]
        distance = np.abs(z - exact.z[:batch]).max(axis=1)[known]
        result["z_error_worst"] = float(distance.max(initial=0))
    if entry.backward:
        gradients = {name: g.numpy() for name, g in entry.run_total().items()}
        for value in gradients.values():
            failed |= ~np.isfinite(value.reshape(batch, -1)).all(axis=1)
        if exact is not None and exact.regular[:batch].any():
            errors = gradient_errors(gradients, exact.gradients, batch)
            result["gradient_error"] = {
                name: {
                    "median": float(np.median(error[exact.regular[:batch]])),
                    "worst": float(np.max(error[exact.regular[:batch]])),
                }
                for name, error in errors.items()
            }
    result["failures"] = int(failed.sum())
    return result


def _exact(problem: Problem, entries: list[Entry]) -> tuple[Reference | None, str]:
    """The reference, from DAQP's active set, else from the first layer's multipliers.

    Where an active set comes from does not matter: it is used only if its KKT solve verifies it.
    """
    try:
        return reference(problem, daqp_active(problem)), "active set of DAQP"
    except ImportError:
        for entry in entries:
            if entry.problem.batch == problem.batch:
                z, _, lam = entry.layer.detail(*entry.data)
                slack = problem.h.numpy() - np.einsum("bij,bj->bi", problem.G.numpy(), z)
                return reference(problem, lam > slack), f"active set of {entry.name}"
    return None, "none: daqp is not installed"


def _rounds(entries: list[Entry], options: argparse.Namespace, errors: dict[str, str]) -> int:
    """Times every layer once a round, each round starting with another one."""
    alive, done, rounds = list(entries), 0, options.repeats
    started = time.perf_counter()
    while alive and (rounds is None or done < rounds):
        gc.collect()
        shift = done % len(alive)
        for entry in alive[shift:] + alive[:shift]:
            try:
                entry.forward.append(_seconds(entry.run_forward))
                if entry.backward:
                    entry.total.append(_seconds(entry.run_total))
            except BaseException as error:
                if _is_fatal(error):
                    raise
                errors[entry.name] = _reason(error)
        alive = [entry for entry in alive if entry.name not in errors]
        done += 1
        if options.repeats is None and done == 1:
            # The first round's cost says how many fit into the time.
            cost = time.perf_counter() - started
            rounds = max(MIN_ROUNDS, min(MAX_ROUNDS, round(options.seconds / cost)))
    return done


def _statistics(seconds: list[float], batch: int) -> dict[str, Any] | None:
    if not seconds:
        return None
    us = [1e6 * s / batch for s in seconds]
    return {"median": float(np.median(us)), "min": min(us), "max": max(us), "all": us}


def _case(case: tuple[int, int, int, int], names: list[str], options: argparse.Namespace) -> dict:
    n, m, p, batch = case
    problem = optnet(n, m, p, batch, options.seed)
    entries: list[Entry] = []
    left_out: dict[str, str] = {}
    for name in names:
        made = _prepare(name, problem, options.threads)
        if isinstance(made, Entry):
            entries.append(made)
        else:
            left_out[name] = made
    exact, source = _exact(problem, entries)
    for entry in list(entries):
        try:
            entry.accuracy = _accuracy(entry, exact)
        except BaseException as error:
            if _is_fatal(error):
                raise
            left_out[entry.name] = _reason(error)
            entries.remove(entry)
    done = _rounds(entries, options, left_out)
    layers = {
        entry.name: {
            "batch": entry.problem.batch,
            "batch_cut": entry.problem.batch < batch,
            "settings": entry.layer.settings,
            "forward_us": _statistics(entry.forward, entry.problem.batch),
            "forward_backward_us": _statistics(entry.total, entry.problem.batch),
            **entry.accuracy,
        }
        for entry in entries
        if entry.name not in left_out
    }
    ours = layers.get("torchqp")
    for values in layers.values():
        for column in ("forward_us", "forward_backward_us"):
            if ours and values[column] and ours[column]:
                values[column]["ratio"] = values[column]["median"] / ours[column]["median"]
    margins = exact.margin if exact else np.array([np.nan])
    return {
        "n": n,
        "m": m,
        "p": p,
        "batch": batch,
        "rounds": done,
        "reference": source,
        "regular": int(exact.regular.sum()) if exact else None,
        "unverified": int((~exact.verified).sum()) if exact else None,
        "margin_min": float(margins.min()),
        "layers": layers,
        "left_out": left_out,
    }


def _number(value: float) -> str:
    return f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def _print_case(case: dict) -> None:
    known = "no reference"
    if case["regular"] is not None:
        known = (
            f"{case['regular']} of {case['batch']} regular, smallest strict-complementarity margin "
            f"{case['margin_min']:.0e}, {case['unverified']} unverified; {case['reference']}"
        )
    print(f"\n(n, m, p) = ({case['n']}, {case['m']}, {case['p']}) x {case['batch']}")
    print(f"  {case['rounds']} rounds; {known}")
    print(
        f"  {'layer':<18}{'batch':>6} {'forward':>10}{'ratio':>8}{'with bwd':>11}{'ratio':>8}"
        f"{'residual med / max':>21}{'grad error med / max':>22}{'failed':>8}"
    )
    for name, values in case["layers"].items():
        cells = []
        for column, width in (("forward_us", 10), ("forward_backward_us", 11)):
            time_us = values[column]
            text = _number(time_us["median"]) if time_us else "-"
            ratio = f"{time_us['ratio']:.2f}x" if time_us and "ratio" in time_us else "-"
            cells.append(f"{text:>{width}}{ratio:>8}")
        residual = f"{values['residual_median']:.0e} / {values['residual_worst']:.0e}"
        error = values.get("gradient_error", {}).get("all")
        gradient = f"{error['median']:.0e} / {error['worst']:.0e}" if error else "-"
        batch = f"{values['batch']}{'*' if values['batch_cut'] else ' '}"
        print(
            f"  {name:<18}{batch:>7}{''.join(cells)}{residual:>21}{gradient:>22}"
            f"{values['failures']:>8}"
        )
    for name, reason in case["left_out"].items():
        print(f"  {name}: left out ({reason})")


def _versions(names: list[str]) -> dict[str, str]:
    """Versions of the peers' packages that are installed."""
    versions = {}
    for package in [p for name in names for p in ADAPTERS[name].packages] + ["scipy", "daqp"]:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return versions


def _plain(value: Any) -> Any:
    """JSON has no NaN and no infinity: null."""
    if isinstance(value, dict):
        return {key: _plain(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _available(names: list[str]) -> tuple[list[str], dict[str, str]]:
    """Splits the layers into those that can be built and those that cannot, with the reason."""
    present, absent = [], {}
    for name in names:
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                ADAPTERS[name].build(Size(2, 2, 0, 1, 1))
            present.append(name)
        except BaseException as error:
            if _is_fatal(error):
                raise
            absent[name] = _reason(error)
    return present, absent


def run(options: argparse.Namespace, cores: list[int]) -> None:
    """The whole benchmark: measures, prints, writes ``options.out`` after every case."""
    torch.set_num_threads(options.threads)
    warnings.filterwarnings("ignore")  # the peers' deprecations would bury the table
    wanted = options.layers or list(DEFAULT_LAYERS)
    unknown = [name for name in wanted if name not in ADAPTERS]
    if unknown:
        raise SystemExit(f"--layers {' '.join(unknown)}: choose from {' '.join(ADAPTERS)}")
    names, absent = _available(wanted)
    result: dict[str, Any] = environment()
    result["versions"] |= _versions(wanted)
    result |= {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "recipe": "Q = UU' + 1e-3 I, U ~ U(0,1); float64; gradients of w'z for Q, q, G, h, A, b",
        "threads": options.threads,
        "pinned_to": cores,
        "seed": options.seed,
        "load_average_start": os.getloadavg(),
        "absent": absent,
        "cases": [],
    }
    if "torchqp" in names:
        import torchqp

        result["torchqp_build"] = {k: str(v) for k, v in dict(torchqp.build_info()).items()}
    machine, versions = result["machine"], result["versions"]
    print(f"{machine['cpu']}, {options.threads} of {machine['cores']} cores; {result['date']}")
    print(f"commit {result['commit']}; {', '.join(f'{k} {v}' for k, v in versions.items() if v)}")
    print("us per QP, medians over the rounds; ratio: layer / torchqp; *: batch cut;")
    print(f"failed: members with a residual above {FAILURE_RESIDUAL:.0e}, or with NaN")
    for name, reason in absent.items():
        print(f"absent: {name} ({reason})")
    started = time.perf_counter()
    for case in options.cases or DEFAULT_CASES:
        measured = _case(case, names, options)
        _print_case(measured)
        result["cases"].append(measured)
        result["seconds"] = time.perf_counter() - started
        result["load_average_end"] = os.getloadavg()
        if options.out:
            write_json(options.out, _plain(result))
    print(f"\n{time.perf_counter() - started:.0f} s, load {os.getloadavg()[0]:.1f}")
