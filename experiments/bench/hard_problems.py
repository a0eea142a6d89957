"""Published problems from tests/data: as arguments of solve_qp, with optima and error measures."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from experiments.common import load_npz

DATA = Path(__file__).resolve().parents[2] / "tests" / "data"
COLLECTIONS = ("maros_meszaros", "netlib_lp", "qp_misc")
INFINITY = 1e20

Arguments = dict[str, Tensor]


@dataclass(frozen=True)
class Published:
    """One problem.

    Attributes:
        name: as published.
        arguments: of solve_qp, float64, no batch; equalities in A, b, other rows in G.
        offset: constant of the objective.
        optimum: published or recomputed value, offset included; NaN where there is none.
        feasible: whether there is a solution at all.
    """

    name: str
    arguments: Arguments
    offset: float
    optimum: float
    feasible: bool = True

    def objective(self, z: Tensor) -> float:
        """The value at z."""
        Q, q = self.arguments["Q"], self.arguments["q"]
        return float(z @ (Q @ z) / 2 + q @ z) + self.offset

    def value_error(self, z: Tensor) -> float:
        """Relative error of the value at z."""
        return abs(self.objective(z) - self.optimum) / max(1.0, abs(self.optimum))


@cache
def _checksums() -> dict[str, str]:
    lines = (DATA / "SHA256SUMS").read_text(encoding="ascii").splitlines()
    return {name: digest for digest, name in (line.split() for line in lines)}


def names(collection: str) -> list[str]:
    """The problems of a collection, in alphabetical order."""
    files = [Path(name) for name in _checksums() if name.startswith(f"{collection}/")]
    return sorted(file.stem for file in files if file.suffix == ".npz")


def _read(relative: str) -> dict[str, np.ndarray]:
    return load_npz(DATA / relative, _checksums()[relative])


def _dense(data: dict[str, np.ndarray], name: str, rows: int) -> np.ndarray:
    matrix = np.zeros((rows, int(data["n"])))
    matrix[data[f"{name}_row"], data[f"{name}_col"]] = data[f"{name}_val"]
    return matrix


def load(collection: str, name: str) -> Published:
    """One problem of maros_meszaros, netlib_lp or qp_misc; its checksum must be right."""
    data = _read(f"{collection}/{name}.npz")
    C = _dense(data, "C", int(data["m"]))
    equal = data["l"] == data["u"]
    found = {"Q": _dense(data, "P", int(data["n"])), "q": data["q"]}
    if equal.any():
        found |= {"A": C[equal], "b": data["u"][equal]}
    if not equal.all():
        found |= {"G": C[~equal], "h": data["u"][~equal], "h_lower": data["l"][~equal]}
    found |= {side: data[side] for side in ("lb", "ub") if np.isfinite(data[side]).any()}
    return Published(name, _tensors(found), float(data["r"]), float(data["obj_ref"]))


def _tensors(arrays: dict[str, np.ndarray]) -> Arguments:
    return {key: torch.from_numpy(np.asarray(a, dtype=np.float64)) for key, a in arrays.items()}


@cache
def _grids() -> tuple[dict[str, np.ndarray], dict[str, dict[str, str]]]:
    with (DATA / "power_grids" / "optima.csv").open(newline="", encoding="ascii") as file:
        optima = {row["case"]: row for row in csv.DictReader(file)}
    return _read("power_grids/pglib_opf.npz"), optima


def grid_names() -> list[str]:
    """The cases, the smallest first."""
    optima = _grids()[1]
    return sorted(optima, key=lambda case: int(optima[case]["n_bus"]))


def grid(case: str) -> Published:
    """The DC optimal power flow of a case: angles and generation, flow = b (angle difference).

    b = x / (r^2 + x^2), taps and shifts ignored; balance at every bus, limits of flows, angle
    differences and generators, angle 0 at the reference.
    """
    tables, optima = _grids()
    base = float(tables[f"{case}/baseMVA"])
    bus, gen, branch, cost = (
        tables[f"{case}/{table}"] for table in ("bus", "gen", "branch", "gencost")
    )
    on = gen[:, 7] > 0
    gen, cost, branch = gen[on], cost[on], branch[branch[:, 10] > 0]
    place = {int(number): i for i, number in enumerate(bus[:, 0])}
    buses, lines, n = len(bus), len(branch), len(bus) + len(gen)
    differences = np.zeros((lines, buses))
    for end, sign in ((0, 1.0), (1, -1.0)):
        differences[np.arange(lines), [place[int(i)] for i in branch[:, end]]] += sign
    flows = (branch[:, 3] / (branch[:, 2] ** 2 + branch[:, 3] ** 2))[:, None] * differences

    A, b = np.zeros((buses + 1, n)), np.append(-(bus[:, 4] + bus[:, 2]) / base, 0.0)
    A[:buses, :buses] = differences.T @ flows
    A[[place[int(i)] for i in gen[:, 0]], np.arange(buses, n)] -= 1.0
    A[buses, np.argmax(bus[:, 1] == 3)] = 1.0
    rate = branch[:, 5] / base
    limited = rate > 0
    G = np.zeros((int(limited.sum()) + lines, n))
    G[:, :buses] = np.concatenate([flows[limited], differences])
    h = np.concatenate([rate[limited], np.deg2rad(branch[:, 12])])
    h_lower = np.concatenate([-rate[limited], np.deg2rad(branch[:, 11])])
    Q, q, lb, ub = np.zeros((n, n)), np.zeros(n), np.full(n, -np.inf), np.full(n, np.inf)
    generators = np.arange(buses, n)
    Q[generators, generators], q[buses:] = 2 * base**2 * cost[:, 4], base * cost[:, 5]
    lb[buses:], ub[buses:] = gen[:, 9] / base, gen[:, 8] / base
    found = {"Q": Q, "q": q, "G": G, "h": h, "h_lower": h_lower, "A": A, "b": b, "lb": lb, "ub": ub}
    row = optima[case]
    feasible = row["dc_status"] == "optimal"
    optimum = float(row["dc_obj_ref"]) if feasible else np.nan
    return Published(case, _tensors(found), float(cost[:, 6].sum()), optimum, feasible)


def pad(problems: list[Published]) -> Arguments:
    """One batch of problems of different sizes: fixed variables, 0'z = 0 and 0'z <= inf fill it."""
    n, m, p = (
        max(len(x.arguments[name]) if name in x.arguments else 0 for x in problems)
        for name in ("q", "h", "b")
    )
    shapes: dict[str, tuple[int, ...]] = {"Q": (n, n), "q": (n,), "G": (m, n), "A": (p, n)}
    shapes |= {"h": (m,), "h_lower": (m,), "b": (p,), "lb": (n,), "ub": (n,)}
    absent = {"h": torch.inf, "h_lower": -torch.inf}
    free = {"lb": -torch.inf, "ub": torch.inf}
    batch: Arguments = {}
    for name, shape in shapes.items():
        filled = torch.full((len(problems), *shape), absent.get(name, 0.0), dtype=torch.float64)
        for member, problem in zip(filled, problems, strict=True):
            value = problem.arguments.get(name)
            if value is None and name in free:
                value = torch.full_like(problem.arguments["q"], free[name])
            if value is not None:
                member[tuple(slice(size) for size in value.shape)] = value
        batch[name] = filled
    return batch


def absolute_residuals(arguments: Arguments, solution: Any) -> tuple[float, float, float]:
    """Primal, dual and gap of one problem as qpbenchmark defines them: absolute, largest entry."""
    given = {name: value.double() for name, value in arguments.items()}
    z, nu, lam, lam_lb, lam_ub = (value.double() for value in solution[:5])
    Qz = given["Q"] @ z
    slope, primal = Qz + given["q"], z.new_zeros(1)
    gap = z @ Qz + given["q"] @ z
    if "A" in given:
        slope = slope + given["A"].mT @ nu
        primal = torch.cat([primal, (given["A"] @ z - given["b"]).abs()])
        gap = gap + given["b"] @ nu
    sides = []
    if "G" in given:
        slope, rows = slope + given["G"].mT @ lam, given["G"] @ z
        sides = [("h", 1.0, rows, lam.clamp(min=0)), ("h_lower", -1.0, rows, (-lam).clamp(min=0))]
    if "lb" in given:
        slope = slope - lam_lb
        sides.append(("lb", -1.0, z, lam_lb))
    if "ub" in given:
        slope = slope + lam_ub
        sides.append(("ub", 1.0, z, lam_ub))
    for name, sign, value, multiplier in sides:
        limit = given[name]
        there = limit.abs() < INFINITY
        violation = (sign * (value - limit))[there].clamp(min=0)
        primal = torch.cat([primal, violation])
        gap = gap + sign * (limit[there] @ multiplier[there])
    return float(primal.max()), float(slope.abs().max()), float(gap.abs())
