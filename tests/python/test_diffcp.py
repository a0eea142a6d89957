"""diffcp as an outside oracle: its derivative of the conic form, and its LPGD, on 50 QPs.

Its exact mode rejects quadratic objectives. The QP is therefore handed over as
    min q'z + t   s.t.  Az = b,  Gz <= h,  ||(1 - t, sqrt(2) F z)|| <= 1 + t,   F'F = Q
whose cone says 1/2 z'Qz <= t. Its LPGD mode takes Q as it is; the gradient that it forms for Q
there is wrong and not used.
"""

import warnings

import diffcp
import numpy as np
import pytest
import torch
from scipy import sparse

import torchqp
from torchqp import LPGD, Settings, reference, testing

D = torch.float64
# Clarabel inside diffcp stops where derivatives are right to 1e-5 only, on some machines to less.
EXACT = {"solve_method": "SCS", "eps": 1e-11, "max_iters": 200_000}
SHARP = Settings(eps_abs=1e-12, eps_rel=1e-12)
N = 8


def draw_problems(count: int = 50) -> dict:
    """Two equalities and eight rows in eight variables; strictly complementary by a margin."""
    problem = testing.make("strictly_convex", N, 2 * count, seed=2024)
    solution = reference.solve_qp(**problem)
    regular = (testing.strictness(problem, solution) > 1e-3).nonzero().squeeze(-1)
    assert regular.numel() >= count
    return testing.take(problem, regular[:count])


@pytest.fixture(scope="module")
def problem() -> dict:
    return draw_problems()


@pytest.fixture(scope="module")
def cotangents(problem: dict) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(problem["q"].shape, generator=generator, dtype=D)


def conic(member: dict) -> tuple:
    """(A, b, c, cones) of the epigraph form, and F."""
    Q, q, G, h, A, b = (member[k].numpy() for k in ("Q", "q", "G", "h", "A", "b"))
    F = np.linalg.cholesky(Q).T
    p, m, n = len(b), len(h), len(q)
    zeros, t = np.zeros((n, 1)), np.zeros((2, n + 1))
    t[:, -1] = (-1.0, 1.0)
    rows = [np.hstack([A, np.zeros((p, 1))]), np.hstack([G, np.zeros((m, 1))]), t]
    rows.append(np.hstack([-np.sqrt(2) * F, zeros]))
    limits = np.concatenate([b, h, [1.0, 1.0], np.zeros(n)])
    cones = {diffcp.ZERO: p, diffcp.POS: m, diffcp.SOC: [n + 2]}
    return sparse.csc_matrix(np.vstack(rows)), limits, np.append(q, 1.0), cones, F


def close(actual: torch.Tensor, expected: np.ndarray, limit: float, name: str) -> None:
    error = testing.relative_error(actual, torch.from_numpy(np.ascontiguousarray(expected)))
    assert error <= limit, (name, error)


def test_exact_gradients_of_all_six_parameters(problem: dict, cotangents: torch.Tensor) -> None:
    _, grads = testing.pullback(torchqp.solve_qp, problem, {"z": cotangents})
    for i in range(len(cotangents)):
        A, b, c, cones, F = conic(testing.take(problem, i))
        *_, adjoint = diffcp.solve_and_derivative(A, b, c, cones, mode="dense", **EXACT)
        p, m = problem["b"].shape[-1], problem["h"].shape[-1]
        dA, db, dc = adjoint(
            np.append(cotangents[i].numpy(), 0.0), np.zeros(len(b)), np.zeros(len(b))
        )
        dA = dA.toarray()
        ours = {k: g[i] for k, g in grads.items()}
        close(ours["q"], dc[:N], 1e-5, "q")
        close(ours["b"], db[:p], 1e-5, "b")
        close(ours["h"], db[p : p + m], 1e-5, "h")
        close(ours["A"], dA[:p, :N], 1e-5, "A")
        close(ours["G"], dA[p : p + m, :N], 1e-5, "G")
        # d Q = dF'F + F'dF: the gradient with respect to F is 2 F grad_Q, on F's nonzeros.
        pattern = F != 0
        through_F = -np.sqrt(2) * dA[p + m + 2 :, :N]
        close(torch.from_numpy(2 * F @ ours["Q"].numpy() * pattern), through_F * pattern, 1e-5, "Q")


@pytest.mark.parametrize("rho", [0.0, 0.1])
@pytest.mark.parametrize("tau", [0.1, 2.0])
def test_lpgd_of_q_and_the_limits(
    problem: dict, cotangents: torch.Tensor, tau: float, rho: float
) -> None:
    """lpgd_right, lpgd_left and lpgd are lower, upper, average; tau = 2 leaves the active set."""
    ours = {}
    for side in ("lower", "upper", "average"):
        mode = LPGD(tau=tau, tau_mode="absolute", side=side, rho=rho)
        options = {"backward": mode, "settings": SHARP}
        _, ours[side] = testing.pullback(torchqp.solve_qp, problem, {"z": cotangents}, **options)
    _, exact = testing.pullback(torchqp.solve_qp, problem, {"z": cotangents})
    assert testing.relative_error(ours["average"]["q"], exact["q"]) > (
        1e-3 if tau > 1 or rho else 0
    )
    for i in range(len(cotangents)):
        member = {k: v[i].numpy() for k, v in problem.items()}
        A = sparse.csc_matrix(np.vstack([member["A"], member["G"]]))
        b, P = np.concatenate([member["b"], member["h"]]), sparse.csc_matrix(np.triu(member["Q"]))
        cones, p = {diffcp.ZERO: len(member["b"]), diffcp.POS: len(member["h"])}, len(member["b"])
        none = np.zeros(len(b))
        for side, mode in (("lower", "lpgd_right"), ("upper", "lpgd_left"), ("average", "lpgd")):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # scipy's, inside diffcp
                *_, adjoint = diffcp.solve_and_derivative(
                    A.copy(),
                    b,
                    member["q"],
                    cones,
                    mode=mode,
                    solve_method="SCS",
                    P=P,
                    derivative_kwargs={"tau": tau, "rho": rho},
                    eps=1e-11,
                    max_iters=100_000,
                )
                _, db, dc = adjoint(cotangents[i].numpy(), none, none)
            close(ours[side]["q"][i], dc, 1e-4, f"q {side}")
            close(ours[side]["b"][i], db[:p], 1e-4, f"b {side}")
            close(ours[side]["h"][i], db[p:], 1e-4, f"h {side}")
