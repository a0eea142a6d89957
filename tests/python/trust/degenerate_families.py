"""Sixteen families of QPs whose active set, multipliers or solution is degenerate."""

import torch
from contract import D
from torch import Tensor

from torchqp import testing

SIZES = (2, 5, 12, 25)
# Where z itself is not unique: any change of q moves it by a finite distance.
NOT_UNIQUE = ("flat program", "face", "rank one")


def families(batch: int, n: int, seed: int) -> dict[str, dict]:
    """`batch` problems of every family, with n variables."""
    generator = torch.Generator().manual_seed(seed)
    times = testing.times

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=D)

    eye = torch.eye(n, dtype=D).expand(batch, n, n)
    nothing, root = torch.zeros(batch, n, n, dtype=D), normal(batch, n, n)
    Q, z = root @ root.mT / n + 0.1 * eye, normal(batch, n)
    G, A, many = normal(batch, n, n), normal(batch, max(1, n // 3), n), normal(batch, 3 * n, n)
    order = torch.arange(n)
    holds = (order < max(1, n // 2)).to(D)
    lam, few = holds.expand(batch, n), (order < max(1, n // 4)).to(D).expand(batch, n)
    weights = torch.rand(batch, 3 * n, generator=generator, dtype=D)
    q = -times(Q, z) - times(G.mT, lam)
    h, b, spike = times(G, z) + 1 - holds, times(A, z), root[..., :1] @ root[..., :1].mT
    ones, cost = torch.ones(n, dtype=D), {"Q": Q, "q": q}
    return {
        "twin rows": cost | {"G": torch.cat([G, G], -2), "h": torch.cat([h, h], -1)},
        "near twins": cost
        | {"G": torch.cat([G, G + 1e-10 * normal(batch, n, n)], -2), "h": torch.cat([h, h], -1)},
        "weak rows": {"Q": Q, "q": -times(Q, z) - times(G.mT, few), "G": G, "h": h},
        "only weak rows": {"Q": Q, "q": -times(Q, z), "G": G, "h": times(G, z)},
        "vertex": {
            "Q": Q,
            "q": -times(Q, z) - times(many.mT, weights),
            "G": many,
            "h": times(many, z),
        },
        "one point": {
            "Q": eye,
            "q": normal(batch, n),
            "G": normal(batch, 8 * n, n),
            "h": torch.zeros(8 * n, dtype=D),
        },
        "twin equalities": cost
        | {"A": torch.cat([A, A, 2 * A], -2), "b": torch.cat([b, b, 2 * b], -1)},
        "paired rows": cost | {"G": torch.cat([A, -A], -2), "h": torch.cat([b, -b], -1)},
        "no Slater point": cost
        | {"G": torch.cat([A, -A, G], -2), "h": torch.cat([b, -b, times(G, z)], -1)},
        "flat program": {
            "Q": nothing,
            "q": torch.zeros(batch, n, dtype=D),
            "lb": -normal(n).abs(),
            "ub": normal(n).abs(),
        },
        "face": {
            "Q": nothing,
            "q": torch.ones(batch, n, dtype=D),
            "A": ones.expand(1, n),
            "b": ones[:1],
            "lb": 0 * ones,
        },
        "degenerate program": {
            "Q": nothing,
            "q": -times(many.mT, weights),
            "G": many,
            "h": times(many, z),
        },
        "rank one": {"Q": spike, "q": times(spike, z), "lb": -3 * ones, "ub": 3 * ones},
        "fixed variables": cost | {"lb": z, "ub": z, "A": A, "b": b},
        "bound and row": {"Q": Q, "q": -times(Q, z) - lam, "G": eye, "h": z, "ub": z},
        "zero rows": cost
        | {
            "G": torch.cat([0 * G, G], -2),
            "h": torch.cat([0 * h, h], -1),
            "A": 0 * A,
            "b": 0 * b,
        },
    }
