"""Catalogue of random problems, checks made from the data alone, and helpers to compare.

`FAMILIES` names twelve families of feasible, bounded QPs. `make(name, n, batch, seed)` draws a
batch from one of them as a
dict that `torchqp.solve_qp(**problem)` takes. Draws are float64 and seeded, then rounded to the
dtype asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from torchqp import reference
from torchqp.functional import Diag

Problem = dict[str, Any]

SIZES = (2, 3, 5, 8, 13, 20, 32, 50, 75, 100)
PARAMETERS = ("Q", "q", "G", "h", "h_lower", "A", "b", "lb", "ub")
MULTIPLIERS = ("nu", "lam", "lam_lb", "lam_ub")
_CORE_DIMS = {"Q": 2, "G": 2, "A": 2}
_INFINITY = 1e20


class _Draw:
    """Seeded draws of one batch, float64."""

    def __init__(self, batch: tuple[int, ...], n: int, seed: int) -> None:
        self.batch, self.n = batch, n
        self.generator = torch.Generator().manual_seed(seed)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(*self.batch, *shape, generator=self.generator, dtype=torch.float64)

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        return low + (high - low) * torch.rand(
            *self.batch, *shape, generator=self.generator, dtype=torch.float64
        )

    def coin(self, *shape: int, chance: float) -> Tensor:
        return self.uniform(*shape) < chance

    def definite(self, rank: int | None = None, ridge: float = 0.1) -> Tensor:
        root = self.normal(self.n, self.n if rank is None else rank)
        Q = root @ root.mT / self.n
        return Q + ridge * torch.eye(self.n, dtype=torch.float64) if ridge else Q

    def around(self, z: Tensor, m: int) -> tuple[Tensor, Tensor]:
        """Rows G and limits h that leave z strictly inside."""
        G = self.normal(m, self.n)
        return G, times(G, z) + self.uniform(m, low=0.05, high=1.0)

    def optimal_at(self, Q: Tensor, m: int, tight: int, p: int) -> Problem:
        """Rows of which `tight` hold at a drawn z, and the q that makes z optimal."""
        z, G, A = self.normal(self.n), self.normal(m, self.n), self.normal(p, self.n)
        slack, lam = self.uniform(m, low=0.1, high=1.1), self.uniform(m, low=0.1, high=1.1)
        holds = torch.arange(m) < tight
        slack, lam = torch.where(holds, 0.0, slack), torch.where(holds, lam, 0.0)
        q = -times(Q, z) - times(G.mT, lam) - times(A.mT, self.normal(p))
        problem: Problem = {"Q": Q, "q": q, "G": G, "h": times(G, z) + slack}
        return problem | ({"A": A, "b": times(A, z)} if p else {})


def times(matrix: Tensor, vector: Tensor) -> Tensor:
    """Matrix-vector product of the last dimensions; leading ones broadcast."""
    return (matrix @ vector.unsqueeze(-1)).squeeze(-1)


def _strictly_convex(draw: _Draw) -> Problem:
    n, z = draw.n, draw.normal(draw.n)
    G, h = draw.around(z, n)
    A = draw.normal(n // 4, n)
    return {"Q": draw.definite(), "q": 3 * draw.normal(n), "G": G, "h": h, "A": A, "b": times(A, z)}


def _semidefinite(draw: _Draw) -> Problem:
    rank, p = draw.n // 2, draw.n // 8
    return draw.optimal_at(draw.definite(rank, ridge=0.0), 2 * draw.n, draw.n - rank, p)


def _linear(draw: _Draw) -> Problem:
    p = draw.n // 5
    return draw.optimal_at(
        torch.zeros(*draw.batch, draw.n, draw.n, dtype=torch.float64), 2 * draw.n, draw.n - p, p
    )


def _box(draw: _Draw) -> Problem:
    """Bounds only; a fifth of the sides infinite, a tenth of the variables fixed."""
    n = draw.n
    lb, width = draw.uniform(n, low=-1.0, high=0.5), draw.uniform(n, low=0.1, high=1.0)
    ub = lb + torch.where(draw.coin(n, chance=0.1), 0.0, width)
    lb, ub = (
        torch.where(draw.coin(n, chance=0.2), -torch.inf, lb),
        torch.where(draw.coin(n, chance=0.2), torch.inf, ub),
    )
    return {"Q": draw.definite(), "q": 2 * draw.normal(n), "lb": lb, "ub": ub}


def _simplex(draw: _Draw) -> Problem:
    """Projection onto the unit simplex in a diagonal metric, min 1/2 z'diag(d)z - w'z."""
    ones = torch.ones(1, draw.n, dtype=torch.float64)
    return {
        "Q": Diag(draw.uniform(draw.n, low=0.5, high=2.0)),
        "q": -draw.normal(draw.n),
        "A": ones,
        "b": ones[0, :1],
        "lb": torch.zeros(draw.n, dtype=torch.float64),
    }


def _equality_only(draw: _Draw) -> Problem:
    A = draw.normal(max(1, draw.n // 2), draw.n)
    return {
        "Q": draw.definite(),
        "q": draw.normal(draw.n),
        "A": A,
        "b": times(A, draw.normal(draw.n)),
    }


def _unconstrained(draw: _Draw) -> Problem:
    return {"Q": draw.definite(), "q": draw.normal(draw.n)}


def _two_sided(draw: _Draw) -> Problem:
    """Rows with both sides, one side, or both sides equal; bounds on half of the variables."""
    n, z = draw.n, draw.normal(draw.n)
    G, h = draw.around(z, n)
    h_lower = times(G, z) - draw.uniform(n, low=0.05, high=1.0)
    kind = draw.uniform(n)
    middle = times(G, z)
    equal = (kind > 0.4) & (kind < 0.5) & (torch.arange(n) % 4 == 0)
    h = torch.where(kind < 0.2, torch.inf, torch.where(equal, middle, h))
    h_lower = torch.where(
        (kind >= 0.2) & (kind < 0.4), -torch.inf, torch.where(equal, middle, h_lower)
    )
    lb = torch.where(torch.arange(n) % 2 == 0, z - draw.uniform(n, low=0.05, high=1.0), -torch.inf)
    ub = torch.where(torch.arange(n) % 2 == 0, z + draw.uniform(n, low=0.05, high=1.0), torch.inf)
    return {
        "Q": draw.definite(),
        "q": 3 * draw.normal(n),
        "G": G,
        "h": h,
        "h_lower": h_lower,
        "lb": lb,
        "ub": ub,
    }


def _degenerate(draw: _Draw) -> Problem:
    """Every row and every equality twice (the latter doubled): only z is unique."""
    n, z = draw.n, draw.normal(draw.n)
    G, h = draw.around(z, max(1, n // 2))
    A = draw.normal(max(1, n // 5), n)
    return {
        "Q": draw.definite(),
        "q": 3 * draw.normal(n),
        "G": torch.cat([G, G], -2),
        "h": torch.cat([h, h], -1),
        "A": torch.cat([A, 2 * A], -2),
        "b": torch.cat([times(A, z), 2 * times(A, z)], -1),
    }


def _many_rows(draw: _Draw) -> Problem:
    G, h = draw.around(draw.normal(draw.n), 4 * draw.n)
    return {"Q": draw.definite(), "q": 3 * draw.normal(draw.n), "G": G, "h": h}


def _optnet(draw: _Draw) -> Problem:
    """The timing recipe of OptNet (2017): Q = UU' + 1e-3 I, h = G z0 + s0; cond(Q) reaches 1e7."""
    n, U = draw.n, draw.uniform(draw.n, draw.n)
    G, z = draw.normal(n, n), draw.normal(n)
    Q = U @ U.mT + 1e-3 * torch.eye(n, dtype=torch.float64)
    return {"Q": Q, "q": draw.normal(n), "G": G, "h": times(G, z) + draw.uniform(n)}


def _mixed_scales(draw: _Draw) -> Problem:
    """Strictly convex, then rows scaled by 1e-3..1e3 and variables by 0.1..10."""
    n, problem = draw.n, _strictly_convex(draw)
    variables = 10 ** draw.uniform(n, low=-1.0, high=1.0)
    rows = 10 ** draw.uniform(n, low=-3.0, high=3.0)
    problem["Q"] = variables.unsqueeze(-1) * problem["Q"] * variables.unsqueeze(-2)
    problem["q"] = variables * problem["q"]
    problem["G"] = rows.unsqueeze(-1) * problem["G"] * variables.unsqueeze(-2)
    problem["h"] = rows * problem["h"]
    problem["A"] = problem["A"] * variables.unsqueeze(-2)
    return problem


FAMILIES: dict[str, Callable[[_Draw], Problem]] = {
    "strictly_convex": _strictly_convex,
    "semidefinite": _semidefinite,
    "linear": _linear,
    "box": _box,
    "simplex": _simplex,
    "equality_only": _equality_only,
    "unconstrained": _unconstrained,
    "two_sided": _two_sided,
    "degenerate": _degenerate,
    "many_rows": _many_rows,
    "optnet": _optnet,
    "mixed_scales": _mixed_scales,
}


def make(
    family: str,
    n: int,
    batch: int | tuple[int, ...] = (),
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
) -> Problem:
    """Draws a batch of feasible, bounded problems.

    Args:
        family: a key of `FAMILIES`.
        n: number of variables, 2 or more.
        batch: batch shape; () for one problem without batch dimension.
        seed: of the draw; equal arguments give equal problems.
        dtype: float64 or float32 (rounded after the draw).

    Returns:
        Keyword arguments of solve_qp.

    Example:
        >>> from torchqp import testing
        >>> sorted(testing.make("optnet", n=4, batch=3))
        ['G', 'Q', 'h', 'q']
    """
    shape = (batch,) if isinstance(batch, int) else tuple(batch)
    return cast(FAMILIES[family](_Draw(shape, n, seed)), dtype)


def infeasible(
    n: int, batch: int | tuple[int, ...] = (), kind: str = "rows", seed: int = 0
) -> Problem:
    """Problems without a feasible point: contradictory "rows", "equalities", or "bounds"."""
    draw = _Draw((batch,) if isinstance(batch, int) else tuple(batch), n, seed)
    problem: Problem = {"Q": draw.definite(), "q": draw.normal(n)}
    z, a = draw.normal(n), draw.normal(1, n)
    G, h = draw.around(z, n)
    if kind == "rows":
        middle = times(a, z)
        return problem | {
            "G": torch.cat([G, a, -a], -2),
            "h": torch.cat([h, middle - 1, -middle - 1], -1),
        }
    if kind == "equalities":
        A = torch.cat([a, a + 0.0], -2)
        return problem | {"A": A, "b": torch.cat([times(a, z), times(a, z) + 1], -1)}
    if kind == "bounds":
        ones = torch.ones(1, n, dtype=torch.float64)
        return problem | {
            "G": -ones,
            "h": torch.full((1,), -n - 1.0, dtype=torch.float64),
            "lb": torch.zeros(n, dtype=torch.float64),
            "ub": torch.ones(n, dtype=torch.float64),
        }
    raise ValueError(f"kind: expected 'rows', 'equalities' or 'bounds', got {kind!r}")


def unbounded(
    n: int, batch: int | tuple[int, ...] = (), kind: str = "linear", seed: int = 0
) -> Problem:
    """Problems unbounded below: a "linear" one, or a "quadratic" one along a null vector of Q."""
    draw = _Draw((batch,) if isinstance(batch, int) else tuple(batch), n, seed)
    ray = draw.normal(n)
    Q, q = torch.zeros(*draw.batch, n, n, dtype=torch.float64), draw.normal(n)
    if kind == "quadratic":
        # Small integers and two equal columns: Q is exactly singular, in float32 too.
        root = (2 * draw.normal(n, n)).round()
        root[..., 0] = root[..., 1]
        ray = torch.zeros_like(ray)
        ray[..., 0], ray[..., 1] = 1.0, -1.0
        Q = root.mT @ root
    elif kind != "linear":
        raise ValueError(f"kind: expected 'linear' or 'quadratic', got {kind!r}")
    q = torch.where((q * ray).sum(-1, keepdim=True) > 0, -q, q) - ray
    G, h = draw.around(draw.normal(n), n)
    return {"Q": Q, "q": q, "G": torch.where(times(G, ray).unsqueeze(-1) > 0, -G, G), "h": h.abs()}


def nonconvex(n: int, batch: int | tuple[int, ...] = (), seed: int = 0) -> Problem:
    """Bounded sets, Q with one eigenvalue at -1."""
    draw = _Draw((batch,) if isinstance(batch, int) else tuple(batch), n, seed)
    values, vectors = torch.linalg.eigh(draw.definite())
    values = torch.cat([-torch.ones_like(values[..., :1]), values[..., 1:]], -1)
    box = torch.ones(n, dtype=torch.float64)
    return {
        "Q": (vectors * values.unsqueeze(-2)) @ vectors.mT,
        "q": draw.normal(n),
        "lb": -box,
        "ub": box,
    }


def with_value(problem: Problem, name: str, value: float, at: int = 0) -> Problem:
    """A copy with `value` in one entry of argument `name` (of member `at`, where it is batched)."""
    changed = {k: map_tensor(torch.clone, v) for k, v in problem.items()}
    target = changed[name].d if hasattr(changed[name], "d") else changed[name]
    core = _core(changed, name)
    (target[at] if target.dim() > core else target).reshape(-1)[0] = value
    return changed


def kkt_residuals(problem: Problem, solution: Any) -> Tensor:
    """Relative residuals [*, 4] in float64: stationarity, primal, dual sign, duality gap.

    Each is ||r||_inf / (1 + the largest term it is made of, infinity norm), on the data given
    (`reference.kkt_residuals`).
    """
    with torch.no_grad():
        residuals, sizes = reference.kkt_residuals(problem, solution)
        return residuals / (1 + sizes)


def cotangents(
    solution: Any, seed: int = 0, names: tuple[str, ...] = ("z", *MULTIPLIERS)
) -> dict[str, Tensor]:
    """Normal cotangents of the named outputs, in the solution's dtype and on its device."""
    generator = torch.Generator().manual_seed(seed)
    return {
        k: torch.randn(v.shape, generator=generator, dtype=torch.float64).to(v)
        for k, v in outputs(solution)
        if k in names
    }


def pullback(
    solve: Callable[..., Any],
    problem: Problem,
    weights: dict[str, Tensor] | int = 0,
    **options: Any,
) -> tuple[Any, dict[str, Tensor]]:
    """Solves and differentiates sum <weight, output>.

    Args:
        solve: torchqp.solve_qp or reference.solve_qp.
        problem: keyword arguments of it; all of them are differentiated.
        weights: cotangents by output name, or the seed of `cotangents`.
        **options: further keyword arguments of `solve`.

    Returns:
        The solution, and the gradients by argument name.
    """
    copy, wanted = leaves(problem)
    solution = solve(**copy, **options)
    weights = cotangents(solution, weights) if isinstance(weights, int) else weights
    grads = torch.autograd.grad(
        [getattr(solution, k) for k in weights],
        list(wanted.values()),
        list(weights.values()),
        materialize_grads=True,
    )
    return solution, dict(zip(wanted, grads, strict=True))


def strictness(problem: Problem, solution: Any) -> Tensor:
    """By how much strict complementarity holds: the least max(multiplier, slack), [*]."""
    z, lam = solution.z.detach().double(), solution.lam.detach().double()
    margin = [torch.full_like(z[..., :1], torch.inf)]
    sides = []
    if problem.get("G") is not None:
        value = times(problem["G"].double(), z)
        sides.append((value, problem.get("h"), problem.get("h_lower"), lam, -lam))
    if problem.get("lb") is not None or problem.get("ub") is not None:
        low, high = solution.lam_lb.detach().double(), solution.lam_ub.detach().double()
        sides.append((z, problem.get("ub"), problem.get("lb"), high, low))
    for value, upper, lower, mu_upper, mu_lower in sides:
        equal = torch.zeros_like(value, dtype=torch.bool)
        if upper is not None and lower is not None:
            equal = equal | (upper == lower)
        for limit, mu, sign in ((upper, mu_upper, 1.0), (lower, mu_lower, -1.0)):
            if limit is not None:
                slack = sign * (limit.double() - value)
                margin.append(torch.where(equal, torch.inf, torch.maximum(mu, slack)))
    least = margin[0].amin(-1)
    for m in margin[1:]:
        least = torch.minimum(least, m.amin(-1))
    return least


def finite_differences(
    solve: Callable[..., Any], problem: Problem, weights: dict[str, Tensor], step: float = 1e-5
) -> dict[str, Tensor]:
    """Central differences of sum <weight, output> in every entry of every argument of one problem.

    All moved problems are solved as one batch an argument, the other arguments shared.
    """
    grads = {}
    for name, value in problem.items():
        data = value.d if hasattr(value, "d") else value
        unit = torch.eye(data.numel(), dtype=data.dtype, device=data.device)
        moves = step * unit.reshape(-1, *data.shape)
        moved = torch.cat([data + moves, data - moves])
        solution = solve(**(problem | {name: Diag(moved) if hasattr(value, "d") else moved}))
        losses = sum((getattr(solution, k) * w).sum(-1) for k, w in weights.items())
        up, down = losses.chunk(2)
        grads[name] = ((up - down) / (2 * step)).reshape(data.shape)
    return grads


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """Returns max |actual - expected| / (1 + max |expected|); NaN if anything is, 0 if empty."""
    if actual.shape != expected.shape:
        raise ValueError(f"shapes differ: {tuple(actual.shape)} and {tuple(expected.shape)}")
    if not actual.numel():
        return 0.0
    actual, expected = actual.detach().double(), expected.detach().double()
    return float((actual - expected).abs().max() / (1 + expected.abs().max()))


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Equal shape, dtype and bits; NaNs of equal bits are equal, 0.0 and -0.0 are not."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    kind = {torch.float64: torch.int64, torch.float32: torch.int32}.get(a.dtype)
    a, b = a.detach().contiguous(), b.detach().contiguous()
    return torch.equal(a, b) if kind is None else torch.equal(a.view(kind), b.view(kind))


def map_tensor(function: Callable[[Tensor], Tensor], value: Any) -> Any:
    """Applies a function to a tensor, or to the diagonal of a Diag."""
    return Diag(function(value.d)) if hasattr(value, "d") else function(value)


def cast(problem: Problem, to: torch.dtype | torch.device | str) -> Problem:
    """The problem in another dtype, or on another device."""
    return {k: map_tensor(lambda t: t.to(to), v) for k, v in problem.items()}


def take(problem: Problem, index: Any) -> Problem:
    """The members `index` of the first batch dimension; shared arguments stay as they are."""

    def pick(name: str, tensor: Tensor) -> Tensor:
        return tensor[index] if tensor.dim() > _core(problem, name) else tensor

    return {k: map_tensor(partial(pick, k), v) for k, v in problem.items()}


def concatenate(*problems: Problem) -> Problem:
    """One batch of several; arguments without a batch dimension must be shared by all."""
    merged = {}
    for k, first in problems[0].items():
        parts = [p[k].d if hasattr(p[k], "d") else p[k] for p in problems]
        merged[k] = torch.cat(parts) if parts[0].dim() > _core(problems[0], k) else parts[0]
        merged[k] = Diag(merged[k]) if hasattr(first, "d") else merged[k]
    return merged


def leaves(problem: Problem) -> tuple[Problem, dict[str, Tensor]]:
    """A copy whose arguments require gradients, and those leaves by name (of a Diag, its d)."""
    copy = {
        k: map_tensor(lambda t: t.detach().clone().requires_grad_(), v) for k, v in problem.items()
    }
    return copy, {k: v.d if hasattr(v, "d") else v for k, v in copy.items()}


def outputs(solution: Any) -> Iterator[tuple[str, Tensor]]:
    """Name and value of the differentiable outputs: z and all multipliers."""
    for name in ("z", *MULTIPLIERS):
        yield name, getattr(solution, name)


def _core(problem: Problem, name: str) -> int:
    return 1 if hasattr(problem[name], "d") else _CORE_DIMS.get(name, 1)
