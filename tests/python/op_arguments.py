"""Problems of every shape, and the positional arguments that the operators take for them."""

import torch
from small_problems import everything

import torchqp
from torchqp import testing
from torchqp._rules import SolveOutputs

ORDER = ("Q", "q", "G", "h_lower", "h", "A", "b", "lb", "ub")
MODES = {
    "kkt": torchqp.KKT(),
    "smoothed": torchqp.Smoothed(alpha=0.2, radius=3.0),
    "lpgd": torchqp.LPGD(rho=0.1),
}


def arguments(problem, mode="kkt", start=(None,) * 5, save_factor=True, best_iterate=False):
    """Positional arguments of the operator `solve`."""
    diagonal = isinstance(problem["Q"], torchqp.Diag)
    data = [problem.get(name) for name in ORDER]
    data[0] = problem["Q"].d if diagonal else problem["Q"]
    eps = 1e-8 if data[1].dtype == torch.float64 else 1e-4
    return (
        *data,
        *start,
        diagonal,
        mode,
        MODES[mode].options(),
        eps,
        eps,
        100,
        True,
        best_iterate,
        save_factor,
    )


def kkt_arguments(problem, out, factor=True, duals=True):
    """Positional arguments of `kkt_solve` for the outputs of `solve`."""
    out = SolveOutputs(*out)
    z, nu, lam, status, active = out.z, out.nu, out.lam, out.status, out.active
    diagonal = isinstance(problem["Q"], torchqp.Diag)
    torch.manual_seed(0)
    g = [torch.randn_like(t) for t in (z, nu, lam)]
    bounds = active.shape[-1] != lam.shape[-1]
    g_bound = torch.randn_like(z) if bounds and duals else None
    rest = g[1:] if duals else [None, None]
    return (
        problem["Q"].d if diagonal else problem["Q"],
        problem.get("G"),
        problem.get("A"),
        active,
        status,
        out.factor if factor else None,
        g[0],
        *rest,
        g_bound,
        diagonal,
    )


def variants():
    for name in testing.FAMILIES:
        yield name, testing.make(name, n=4, batch=(2,), seed=1)
    yield "everything", everything()
    yield "everything diagonal", everything(diagonal=True)
    yield "float32", testing.make("two_sided", n=4, batch=(2,), seed=1, dtype=torch.float32)
    yield "one problem", testing.make("two_sided", n=4, seed=2)
    yield "two batch dimensions", testing.make("strictly_convex", n=3, batch=(2, 2), seed=2)
    yield "empty batch", testing.make("two_sided", n=3, batch=(0,), seed=1)
    yield "lb only", {"Q": torch.eye(3), "q": torch.ones(2, 3), "lb": torch.zeros(3)}
    yield "ub only", {"Q": torch.eye(3), "q": torch.ones(2, 3), "ub": torch.zeros(1, 3)}
    yield (
        "lower rows only",
        {"Q": torch.eye(3), "q": torch.ones(2, 3), "G": torch.ones(1, 3), "h_lower": torch.ones(1)},
    )
    yield (
        "no rows",
        {"Q": torch.eye(3), "q": torch.ones(2, 3), "G": torch.ones(0, 3), "h": torch.ones(0)},
    )
    yield (
        "failed member",
        {
            "Q": torch.eye(2),
            "q": torch.ones(2, 2),
            "lb": torch.zeros(2),
            "A": torch.ones(1, 2),
            "b": torch.tensor([[1.0], [-1.0]]),
        },
    )


VARIANTS = dict(variants())
