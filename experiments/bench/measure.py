"""One case of the layer benchmark: every layer's time, residual and gradient error, and ratios."""

from __future__ import annotations

import argparse
import contextlib
import io
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch

from experiments.bench.adapters import ADAPTERS
from experiments.bench.layer import Layer, Size
from experiments.bench.problems import (
    PARAMETERS,
    Problem,
    Reference,
    daqp_active,
    gradient_errors,
    kkt_residual,
    optnet,
    reference,
)
from experiments.bench.suite import Case
from experiments.bench.timing import Timed, guarded, interleave, is_fatal, reason, statistics
from experiments.bench.timing import seconds as timed

NO_SOLUTION = 1e-2  # a layer whose median residual is above it is not compared
FAILURE_RESIDUAL = 1e-6  # a member above it counts as failed
LONG_CALL = 1.0  # a call that takes longer is cut, if the layer's cost is linear in the batch,
CALL_SECONDS = 0.25  # to a batch that takes about this
MEMBER_SECONDS = 5.0  # a layer slower than this for one QP is left out of the case
COLUMNS = ("forward", "forward_backward")


@dataclass
class Entry:
    """One layer in one case: what runs, and what it gave."""

    name: str
    layer: Layer
    problem: Problem
    full_batch: int
    threads: int
    label: str = ""
    times: dict[str, Timed] = field(default_factory=dict)
    accuracy: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Sets the arguments of a call without gradients, and of one with."""
        dtype = ADAPTERS[self.name].dtype
        self.label = self.label or self.name
        self.data = [None if v is None else v.to(dtype) for v in self.problem.arguments()]
        self.leaves = [None if v is None else v.clone().requires_grad_() for v in self.data]
        self.weight = self.problem.weight.to(dtype)
        # ProxQP's layer leaves torch with another number of threads than it found.
        threads = partial(torch.set_num_threads, self.threads)
        self.times["forward"] = Timed(f"{self.label} forward", self.run_forward, threads)
        if self.backward:
            self.times["forward_backward"] = Timed(f"{self.label} total", self.run_total, threads)

    @property
    def backward(self) -> bool:
        return ADAPTERS[self.name].backward

    def run_forward(self) -> torch.Tensor:
        with torch.no_grad():
            return self.layer.solve(*self.data)

    def run_total(self) -> dict[str, torch.Tensor]:
        """Forward, and the gradients of w'z for all parameters."""
        z = self.layer.solve(*self.leaves)
        inputs = [v for v in self.leaves if v is not None]
        gradients = torch.autograd.grad(z, inputs, self.weight.to(z.dtype))
        return dict(zip(PARAMETERS, gradients, strict=False))


def prepare(
    name: str,
    problem: Problem,
    threads: int,
    eps: float | None = None,
    limit: float = MEMBER_SECONDS,
) -> Entry | str:
    """Builds a layer, with a batch cut to CALL_SECONDS; or why it is left out."""
    adapter, batch = ADAPTERS[name], problem.batch
    n, m, p = problem.q.shape[1], problem.h.shape[1], problem.b.shape[1]
    refused = adapter.refuses(Size(n, m, p, batch, threads))
    if refused:
        return refused
    label = name if eps is None else f"{name} {eps:.0e}"

    def entry(size: int) -> Entry:
        layer = adapter.build(Size(n, m, p, size, threads, eps))
        return Entry(name, layer, problem.head(size), problem.batch, threads, label)

    try:
        if adapter.linear:
            trial = entry(min(2, batch))
            call = trial.run_total if adapter.backward else trial.run_forward
            cost = timed(call) / trial.problem.batch  # with what a first call loads
            if cost < max(limit, CALL_SECONDS):
                cost = timed(call) / trial.problem.batch
            if cost > limit:
                return f"{cost:.1f} s for one QP"
            if cost * batch > LONG_CALL:
                batch = max(1, min(batch, int(CALL_SECONDS / cost)))
            if batch == trial.problem.batch:
                return trial
        return entry(batch)
    except BaseException as error:
        if is_fatal(error):
            raise
        return reason(error)


def judge(entry: Entry, exact: Reference | None) -> None:
    """Residual of every member, error of the gradients on regular ones, count of failures."""
    with contextlib.redirect_stdout(io.StringIO()):
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
        gradients = {name: g.double().numpy() for name, g in entry.run_total().items()}
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
    entry.accuracy = result


def exact_solution(problem: Problem, entries: list[Entry]) -> tuple[Reference | None, str]:
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
                return reference(problem, lam > slack), f"active set of {entry.label}"
    return None, "none: daqp is not installed"


def _row(entry: Entry) -> dict[str, Any]:
    """A layer's part of the record."""
    batch = entry.problem.batch
    return {
        "kind": ADAPTERS[entry.name].kind,
        "batch": batch,
        "batch_cut": batch < entry.full_batch,
        "settings": entry.layer.settings,
        **entry.layer.extra(),
        **{f"{key}_us": statistics(t.seconds, 1e-6 * batch) for key, t in entry.times.items()},
        **entry.accuracy,
    }


def ratios(layers: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Peer's median over torchqp's, of the fastest other layer, the fastest loop, and qpth.

    A loop has no gradients: beside forward_backward stands its time for the forward alone. A layer
    whose answers are no solutions (median residual above NO_SOLUTION) is not compared.
    """
    layers = {k: v for k, v in layers.items() if v["residual_median"] <= NO_SOLUTION}
    ours = layers.get("torchqp")
    result: dict[str, dict[str, Any]] = {}
    for column in COLUMNS if ours else ():
        result[column] = {}
        groups = {
            "layer": {k: v for k, v in layers.items() if v["kind"] == "layer"},
            "loop": {k: v for k, v in layers.items() if v["kind"] == "loop"},
            "qpth": {k: v for k, v in layers.items() if k == "qpth"},
        }
        for group, members in groups.items():
            key = "forward_us" if group == "loop" else f"{column}_us"
            times = {name: values[key]["median"] for name, values in members.items()}
            if times and ours is not None:
                best = min(times, key=lambda name: times[name])
                ratio = times[best] / ours[f"{column}_us"]["median"]
                result[column][group] = {"name": best, "us": times[best], "ratio": ratio}
    return result


def measure(
    size: Case,
    names: list[str],
    options: argparse.Namespace,
    skip: dict[str, str] | None = None,
    tolerances: dict[str, list[float]] | None = None,
    limit: float = MEMBER_SECONDS,
) -> dict[str, Any]:
    """The record of a case.

    Args:
        size: n, m, p, batch.
        names: the layers.
        options: threads, seed, seconds and rounds of the script.
        skip: layers that are not to be run, and why.
        tolerances: those to build each layer with, in the place of its default.
        limit: seconds for one QP, above which a layer is left out.
    """
    problem = optnet(*size, seed=options.seed)
    left_out = dict(skip or {})
    entries: list[Entry] = []
    for name in names:
        choices: list[float | None] = [*(tolerances or {}).get(name, [])]
        for eps in (choices or [None]) if name not in left_out else []:
            made = prepare(name, problem, options.threads, eps, limit)
            if isinstance(made, Entry):
                entries.append(made)
            else:
                left_out[name if eps is None else f"{name} {eps:.0e}"] = made
    exact, source = exact_solution(problem, entries)
    for entry in list(entries):
        failed = guarded(lambda entry=entry: judge(entry, exact))  # type: ignore[misc]
        if failed:
            left_out[entry.label] = failed
            entries.remove(entry)
    everything = [timed for entry in entries for timed in entry.times.values()]
    interleave(everything, options.seconds, options.rounds)
    for entry in list(entries):
        errors = [timed.error for timed in entry.times.values() if timed.error]
        if errors:
            left_out[entry.label] = errors[0]
            entries.remove(entry)
    layers = {entry.label: _row(entry) for entry in entries}
    margins = exact.margin if exact else np.array([np.nan])
    return {
        **dict(zip(("n", "m", "p", "batch"), size, strict=True)),
        "reference": source,
        "regular": int(exact.regular.sum()) if exact else None,
        "unverified": int((~exact.verified).sum()) if exact else None,
        "margin_min": float(margins.min()),
        "layers": layers,
        "left_out": left_out,
        "ratios": ratios(layers),
    }


def available(names: list[str]) -> tuple[list[str], dict[str, str]]:
    """Splits the layers into those that can be built and those that cannot, with the reason."""
    unknown = [name for name in names if name not in ADAPTERS]
    if unknown:
        raise SystemExit(f"--layers {' '.join(unknown)}: choose from {' '.join(ADAPTERS)}")
    absent = {}
    with contextlib.redirect_stdout(io.StringIO()):
        for name in names:
            failed = guarded(lambda name=name: ADAPTERS[name].build(Size(2, 2, 0, 1, 1)))  # type: ignore[misc]
            if failed:
                absent[name] = failed
    return [name for name in names if name not in absent], absent


def number(value: float) -> str:
    """A time in three digits or with thousands separators."""
    return f"{value:.3g}" if value < 100 else f"{value:,.0f}"


def power(value: float | None) -> str:
    """An error in one digit; the files have null for NaN."""
    return "NaN" if value is None else f"{value:.0e}"


def show(record: dict[str, Any]) -> None:
    """Prints a case."""
    known = "no reference"
    if record["regular"] is not None:
        known = (
            f"{record['regular']} of {record['batch']} regular, smallest strict-complementarity "
            f"margin {record['margin_min']:.0e}, {record['unverified']} unverified; "
            f"{record['reference']}"
        )
    print(f"\n(n, m, p) x batch = {record['case']}: {known}")
    print(
        f"  {'us per QP':<20}{'batch':>6} {'forward':>12}{'p95':>11}{'with bwd':>12}{'p95':>11}"
        f"{'residual med / max':>21}{'grad error med / max':>22}{'failed':>8}"
    )
    for name, row in record["layers"].items():
        cells = ""
        for column in COLUMNS:
            time = row.get(f"{column}_us")
            pair = (number(time["median"]), number(time["p95"])) if time else ("-", "")
            cells += f"{pair[0]:>12}{pair[1]:>11}"
        residual = f"{power(row['residual_median'])} / {power(row['residual_worst'])}"
        error = row.get("gradient_error", {}).get("all")
        gradient = f"{power(error['median'])} / {power(error['worst'])}" if error else "-"
        batch = f"{row['batch']}{'*' if row['batch_cut'] else ' '}"
        print(f"  {name:<20}{batch:>7}{cells}{residual:>21}{gradient:>22}{row['failures']:>8}")
    for name, why in record["left_out"].items():
        print(f"  {name}: left out ({why})")
    for column, groups in record["ratios"].items():
        told = [f"{g['name']} {g['ratio']:.2f}x" for g in groups.values()]
        print(f"  {column.replace('_', ' + ')}, times torchqp's: {', '.join(told)}")
