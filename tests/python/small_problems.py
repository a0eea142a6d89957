"""Small problems with every kind of constraint, on both sides, holding and slack."""

import torch

import torchqp
from torchqp import testing

NAMES = ("Q", "q", "G", "h", "A", "b", "lb", "ub", "h_lower")
SHARP = torchqp.Settings(eps_abs=1e-10, eps_rel=1e-10)


def everything(batch=(2,), shared=("G", "lb"), diagonal=False, seed=0):
    """Problems with n = 7, m = 3, p = 1 and a known strictly complementary solution.

    Per member one row holds above, one below, one is slack; one lower and one upper bound hold.
    Names in `shared` have no batch dimension; a shared side of a constraint gives all members the
    same z, so b is shared only with A, and h only with G.
    """
    generator = torch.Generator().manual_seed(seed)

    def draw(name, *shape):
        one = name in shared or (name == "z" and {"h", "h_lower", "b", "lb", "ub"} & set(shared))
        lead = () if one else tuple(batch)
        return torch.randn(*lead, *shape, generator=generator, dtype=torch.float64)

    n, m, p = 7, 3, 1
    z = draw("z", n)
    root = draw("Q", n, n)
    Q = (
        draw("Q", n).abs() + 0.5
        if diagonal
        else root @ root.mT / n + 0.5 * torch.eye(n, dtype=torch.float64)
    )
    G, A = draw("G", m, n), draw("A", p, n)
    lam = torch.tensor([0.8, -0.6, 0.0], dtype=torch.float64)
    slack_above = torch.tensor([0.0, 0.9, 0.7], dtype=torch.float64)
    slack_below = torch.tensor([0.8, 0.0, 0.5], dtype=torch.float64)
    lam_lb, lam_ub = torch.zeros(n, dtype=torch.float64), torch.zeros(n, dtype=torch.float64)
    lam_lb[0], lam_ub[1] = 0.7, 0.9
    nu = draw("nu", p)
    Gz, Az = testing.times(G, z), testing.times(A, z)
    Qz = Q * z if diagonal else testing.times(Q, z)
    q = -(Qz + testing.times(A.mT, nu) + testing.times(G.mT, lam) + lam_ub - lam_lb)
    far = 0.4 + draw("z", n).abs()
    problem = {
        "Q": torchqp.Diag(Q) if diagonal else Q,
        "q": q,
        "G": G,
        "h": Gz + slack_above,
        "h_lower": Gz - slack_below,
        "A": A,
        "b": Az,
        "lb": z - torch.where(lam_lb > 0, 0.0, far),
        "ub": z + torch.where(lam_ub > 0, 0.0, far),
    }
    for name in {"h", "h_lower", "b", "lb", "ub"}.difference(shared):
        problem[name] = problem[name].expand(*batch, problem[name].shape[-1]).contiguous()
    return problem


def tensors(problem):
    """The arguments as leaves that require gradients, in the order of NAMES; of a Diag its d."""
    leaves = []
    for name in NAMES:
        value = problem[name]
        value = value.d if isinstance(value, torchqp.Diag) else value
        leaves.append(value.detach().clone().requires_grad_())
    return tuple(leaves)


def solve(*args, diagonal=False, **options):
    """solve_qp with its arguments in the order of NAMES and tight tolerances."""
    named = dict(zip(NAMES, args, strict=True))
    named["Q"] = torchqp.Diag(named["Q"]) if diagonal else named["Q"]
    options.setdefault("settings", SHARP)
    return torchqp.solve_qp(**named, **options)


def mixed_outcomes(batch_of_failures=True):
    """Four problems: solved, infeasible, invalid (NaN in q), solved; all but q and b shared."""
    torch.manual_seed(3)
    root = torch.randn(4, 4, dtype=torch.float64)
    Q = root @ root.mT + torch.eye(4, dtype=torch.float64)
    G = torch.randn(2, 4, dtype=torch.float64)
    q = torch.randn(4, 4, dtype=torch.float64)
    b = torch.zeros(4, 1, dtype=torch.float64)
    if batch_of_failures:
        q[2, 1] = torch.nan
        b[1] = 100.0
    A = torch.ones(1, 4, dtype=torch.float64)
    lb, ub = torch.full((4,), -1.0, dtype=torch.float64), torch.full((4,), 1.0, dtype=torch.float64)
    return {
        "Q": Q,
        "q": q,
        "G": G,
        "h": torch.full((2,), 0.1, dtype=torch.float64),
        "A": A,
        "b": b,
        "lb": lb,
        "ub": ub,
    }
