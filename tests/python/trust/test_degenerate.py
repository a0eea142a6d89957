"""D1 to D10: trivial, singular, redundant, degenerate and badly scaled problems."""

import pytest
import torch
from contract import MODES, D, assert_clean, assert_honest, statuses, tensor

import torchqp
from torchqp import Status, testing

EYE, ONES, ZEROS = torch.eye(3, dtype=D), torch.ones(3, dtype=D), torch.zeros(3, dtype=D)
NOTHING = torch.zeros(3, 3, dtype=D)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=D)


def rotated(eigenvalues: list[float], seed: int = 0) -> torch.Tensor:
    n = len(eigenvalues)
    basis = torch.linalg.qr(normal(n, n, seed=seed)).Q
    return basis @ torch.diag(tensor(*eigenvalues)) @ basis.mT


@pytest.mark.parametrize("Q", [EYE, NOTHING], ids=["Q=I", "Q=0"])
def test_D1_zero_data_is_solved(Q: torch.Tensor) -> None:
    """Qpth #47, JaxOpt #95, eigen-QP #4: all-zero q, A or G gave NaN."""
    q = ZEROS if Q is NOTHING else -ONES
    row = torch.zeros(2, 3, dtype=D)
    for extra in (
        {},
        {"G": EYE, "h": ZEROS},
        {"G": row, "h": ONES[:2]},
        {"G": row, "h": ZEROS[:2]},
        {"A": row, "b": ZEROS[:2]},
        {"A": row, "b": ZEROS[:2], "G": row, "h": ONES[:2]},
        {"G": row, "h": ONES[:2], "h_lower": -ONES[:2], "lb": -ONES, "ub": ONES},
    ):
        for linear in (q, ZEROS):
            problem = {"Q": Q, "q": linear} | extra
            for mode in MODES:
                solution, _ = assert_clean(problem, mode)
                assert int(solution.status) == 0, extra
            assert_honest(problem, solution)
            if "G" not in extra or extra["G"] is row:
                assert testing.relative_error(solution.z, -linear) <= 1e-9
                assert not bool(solution.lam.any())


@pytest.mark.parametrize("Q", [EYE, NOTHING], ids=["Q=I", "Q=0"])
def test_D1_a_zero_row_below_zero_is_infeasible(Q: torch.Tensor) -> None:
    problem = {"Q": Q, "q": ZEROS, "G": torch.zeros(1, 3, dtype=D)}
    for gap in (1.0, 1e-3, 1e-6):
        for box in ({}, {"lb": -ONES, "ub": ONES}):
            for limit in ({"h": tensor(-gap)}, {"h_lower": tensor(gap)}):
                assert statuses(problem | limit | box) == [Status.PRIMAL_INFEASIBLE], (gap, box)


@pytest.mark.parametrize("Q", [EYE, NOTHING], ids=["Q=I", "Q=0"])
def test_D1_a_zero_equality_that_is_not_zero_is_infeasible(Q: torch.Tensor) -> None:
    problem = {"Q": Q, "q": ZEROS, "A": torch.zeros(1, 3, dtype=D)}
    for gap in (1.0, -1.0, 1e-3, 1e-6):
        for box in ({}, {"lb": -ONES, "ub": ONES}):
            found = statuses(problem | {"b": tensor(gap)} | box)
            assert found == [Status.PRIMAL_INFEASIBLE], (gap, box)


def test_D2_singular_matrices_are_solved_and_indefinite_ones_named() -> None:
    box = {"lb": -torch.ones(8, dtype=D), "ub": torch.ones(8, dtype=D)}
    both = torch.cat([torch.eye(8, dtype=D), -torch.eye(8, dtype=D)])
    rows = {"G": both, "h": torch.ones(16, dtype=D)}
    for limits in (box, rows):
        for spectrum in ([0.0] * 8, [0.0] * 7 + [3.0], [0.0] * 4 + [1.0, 2.0, 3.0, 5.0]):
            problem = {"Q": rotated(spectrum), "q": normal(8, seed=1)} | limits
            assert statuses(problem) == [0], spectrum
            assert_honest(problem, torchqp.solve_qp(**problem))
        for least, expected in (
            (0.0, Status.SOLVED),
            (-1e-14, Status.SOLVED),
            (-1e-12, Status.SOLVED),
            (-1e-5, Status.NOT_CONVEX),  # as VALUES of Maros-Meszaros
            (-1e-3, Status.NOT_CONVEX),
            (-1.0, Status.NOT_CONVEX),
        ):
            problem = {"Q": rotated([1.0] * 6 + [5.0, least]), "q": normal(8, seed=1)} | limits
            assert statuses(problem) == [expected], least


def test_D2_only_the_symmetric_part_counts() -> None:
    problem = testing.make("strictly_convex", 7, 3, seed=8)
    skew = normal(7, 7)
    turned = problem | {"Q": problem["Q"] + skew - skew.mT}
    weights = testing.cotangents(torchqp.solve_qp(**problem), 0)
    a, a_grads = testing.pullback(torchqp.solve_qp, problem, weights)
    b, b_grads = testing.pullback(torchqp.solve_qp, turned, weights)
    assert testing.relative_error(b.z, a.z) <= 1e-10
    assert testing.relative_error(b_grads["Q"], a_grads["Q"]) <= 1e-8
    assert testing.relative_error(b_grads["Q"], b_grads["Q"].mT) <= 1e-14


@pytest.mark.parametrize("near", [0.0, 1e-10])
def test_D3_twin_rows_have_the_solution_and_gradient_of_one(near: float) -> None:
    for slack in (0.0, 1.0):  # active twins, inactive twins
        z, G, n = normal(4, 6), normal(4, 3, 6, seed=1), 6
        h = testing.times(G, z) + slack
        single = {"Q": torch.eye(n, dtype=D), "q": -z - G.sum(-2), "G": G, "h": h}
        again = G + near * normal(4, 3, 6, seed=2)
        twins = single | {"G": torch.cat([G, again], -2), "h": torch.cat([h, h], -1)}
        weights = testing.cotangents(torchqp.solve_qp(**single), 1, names=("z",))
        one, one_grads = testing.pullback(torchqp.solve_qp, single, weights)
        two, two_grads = testing.pullback(torchqp.solve_qp, twins, weights)
        assert not bool(two.status.any())
        assert testing.relative_error(two.z, one.z) <= 1e-8
        assert testing.relative_error(two.lam[:, :3] + two.lam[:, 3:], one.lam) <= 1e-7
        for name in ("Q", "q"):
            assert testing.relative_error(two_grads[name], one_grads[name]) <= 1e-6
        folded = two_grads["h"][:, :3] + two_grads["h"][:, 3:]
        assert testing.relative_error(folded, one_grads["h"]) <= 1e-6


def test_D4_redundant_equalities_are_solved_with_finite_multipliers() -> None:
    A, z = normal(5, 3, 8), normal(5, 8, seed=1)
    more = torch.cat([A, A.sum(-2, keepdim=True), 2 * A[:, :1]], -2)
    box = {"lb": z - 1, "ub": z + 1}
    for Q in (torch.eye(8, dtype=D), torch.zeros(8, 8, dtype=D)):
        for limits in ({}, box):
            if not bool(Q.any()) and not limits:
                continue
            few = {"Q": Q, "q": normal(5, 8, seed=2), "A": A, "b": testing.times(A, z)} | limits
            many = few | {"A": more, "b": testing.times(more, z)}
            one, two = torchqp.solve_qp(**few), torchqp.solve_qp(**many)
            assert not bool(two.status.any())
            assert_honest(many, two)
            assert testing.relative_error(two.z, one.z) <= 1e-7
            pull = [testing.times(m.mT, s.nu) for m, s in ((A, one), (more, two))]
            assert testing.relative_error(pull[1], pull[0]) <= 1e-7
            assert float(two.nu.abs().max()) <= 10 * (1 + float(one.nu.abs().max()))


def test_D4_nearly_consistent_equalities_are_solved_within_the_tolerance() -> None:
    A = normal(3, 8)
    problem = {"Q": torch.eye(8, dtype=D), "q": normal(8, seed=2)}
    for gap in (1e-12, 1e-10, 1e-9):
        rows = {"A": torch.cat([A, A.sum(0, keepdim=True)]), "b": tensor(0.0, 0.0, 0.0, gap)}
        assert statuses(problem | rows) == [0], gap
        assert_honest(problem | rows, torchqp.solve_qp(**problem, **rows))


def test_D4_inconsistent_equalities_are_infeasible() -> None:
    A, ones = normal(3, 8), torch.ones(8, dtype=D)
    for gap in (1.0, 1e-3, 1e-6):
        rows = {"A": torch.cat([A, A.sum(0, keepdim=True)]), "b": tensor(0.0, 0.0, 0.0, gap)}
        for Q in (torch.eye(8, dtype=D), torch.zeros(8, 8, dtype=D)):
            for box in ({}, {"lb": -ones, "ub": ones}):
                if bool(Q.any()) or box:
                    problem = {"Q": Q, "q": normal(8, seed=2)} | rows | box
                    assert statuses(problem) == [Status.PRIMAL_INFEASIBLE], (gap, box)


def test_D5_an_equality_as_two_inequalities_has_its_solution_and_gradient() -> None:
    problem = testing.make("equality_only", 8, 6, seed=2)
    A, b = problem.pop("A"), problem.pop("b")
    weights = testing.cotangents(torchqp.solve_qp(**problem, A=A, b=b), 1, names=("z",))
    equal, g = testing.pullback(torchqp.solve_qp, problem | {"A": A, "b": b}, weights)
    pair = {"G": torch.cat([A, -A], -2), "h": torch.cat([b, -b], -1)}
    two, two_g = testing.pullback(torchqp.solve_qp, problem | pair, weights)
    assert not bool(two.status.any())
    assert testing.relative_error(two.z, equal.z) <= 1e-7
    p = A.shape[-2]
    for name in ("Q", "q"):
        assert testing.relative_error(two_g[name], g[name]) <= 1e-5
    assert testing.relative_error(two_g["h"][:, :p] - two_g["h"][:, p:], g["b"]) <= 1e-5


def test_D6_a_weakly_active_row_gives_an_element_between_the_one_sided_derivatives() -> None:
    """At w = 0, z = max(w, 0) has the derivatives 0 and 1; the exact mode's is between them."""
    for sign, limits in ((-1.0, "lb"), (1.0, "ub")):
        w = torch.zeros(1, dtype=D, requires_grad=True)
        z = torchqp.solve_qp(torch.eye(1, dtype=D), -w, **{limits: ZEROS[:1]}).z
        (grad,) = torch.autograd.grad(z.sum(), w)
        assert 0.0 <= float(grad) <= 1.0, sign
    # z = w projected on a half-space through w: dz/dw is between I and I - aa'/|a|^2.
    a = normal(1, 4)
    w = normal(4, seed=1).requires_grad_()
    z = torchqp.solve_qp(torch.eye(4, dtype=D), -w, a, (a @ w).detach()).z
    jacobian = torch.stack([torch.autograd.grad(x, w, retain_graph=True)[0] for x in z])
    values = torch.linalg.eigvalsh(jacobian)
    assert testing.relative_error(jacobian, jacobian.mT) <= 1e-8
    assert bool(((values >= -1e-8) & (values <= 1 + 1e-8)).all())
    assert bool((values[1:] - 1).abs().max() <= 1e-8)


def test_D7_overfull_vertices_and_sets_of_one_point_are_solved() -> None:
    """Pounce #282: 40 half-spaces through 0 in R^5 leave {0}."""
    around = normal(12, 40, 5)
    for Q in (torch.eye(5, dtype=D), torch.zeros(5, 5, dtype=D)):
        G = torch.cat([around, -around.sum(-2, keepdim=True)], -2)
        problem = {"Q": Q, "q": normal(12, 5, seed=1), "G": G, "h": torch.zeros(41, dtype=D)}
        for mode in MODES:
            solution, _ = assert_clean(problem, mode)
            assert not bool((solution.status > 1).any())
        assert float(solution.z.abs().max()) <= 1e-6
    # No Slater point: rows and their negatives at once.
    A, z = normal(12, 2, 5, seed=2), normal(12, 5, seed=3)
    b, G = testing.times(A, z), normal(12, 4, 5, seed=4)
    flat = {
        "Q": torch.eye(5, dtype=D),
        "q": normal(12, 5, seed=1),
        "G": torch.cat([A, -A, G], -2),
        "h": torch.cat([b, -b, testing.times(G, z)], -1),
    }
    for mode in MODES:
        solution, _ = assert_clean(flat, mode)
        assert not bool((solution.status > 1).any())
    assert_honest(flat, solution)


def test_D8_on_a_flat_face_the_value_is_right_and_so_is_its_gradient() -> None:
    """Pounce #948: any point of a face is optimal; d(value)/db = -nu, d(value)/dh = -lam."""
    n = 6
    problem = {
        "Q": torch.zeros(n, n, dtype=D),
        "q": torch.ones(4, n, dtype=D),
        "A": torch.ones(1, n, dtype=D),
        "b": torch.linspace(0.5, 2.0, 4, dtype=D).unsqueeze(-1),
        "lb": torch.zeros(n, dtype=D),
    }
    copy, wanted = testing.leaves(problem)
    solution = torchqp.solve_qp(**copy)
    assert not bool(solution.status.any())
    assert_honest(problem, solution)
    value = (copy["q"] * solution.z).sum(-1)
    assert testing.relative_error(value, problem["b"][:, 0]) <= 1e-8
    (grad,) = torch.autograd.grad(value.sum(), wanted["b"])
    assert testing.relative_error(grad, torch.ones(4, 1, dtype=D)) <= 1e-6
    for mode in MODES:
        assert_clean(problem, mode)


@pytest.mark.parametrize("form", ["rows", "box"])
def test_D9_conditioning_up_to_1e16_is_solved(form: str) -> None:
    for power in range(0, 17, 2):
        Q = rotated(torch.logspace(0, -power, 8, dtype=D).tolist())
        limits = {"G": normal(8, 8, seed=1), "h": torch.ones(8, dtype=D)}
        if form == "box":
            limits = {"lb": -torch.ones(8, dtype=D), "ub": torch.ones(8, dtype=D)}
        problem = {"Q": Q, "q": testing.times(Q, normal(8, seed=2))} | limits
        solution = torchqp.solve_qp(**problem)
        assert int(solution.status) == 0, power
        assert_honest(problem, solution)


def test_D9_mixed_curvature_is_solved_not_accepted_at_the_start() -> None:
    """Pounce #324: P = diag(1e-10, 1e10) was "optimal" at iteration 0."""
    eye, ten = torch.eye(2, dtype=D), torch.full((2,), 10.0, dtype=D)
    problem = {"Q": torch.diag(tensor(1e-10, 1e10)), "q": tensor(-1.0, -1.0)}
    rows = {"G": torch.cat([eye, -eye]), "h": ten.repeat(2)}
    for limits in ({"lb": -ten, "ub": ten}, rows):
        solution = torchqp.solve_qp(**problem, **limits)
        assert int(solution.status) == 0
        assert float((solution.z - tensor(10.0, 1e-10)).abs().max()) <= 1e-7


FAMILIES = ("strictly_convex", "many_rows", "two_sided", "linear", "semidefinite", "degenerate")


@pytest.mark.parametrize("family", FAMILIES)
def test_D9_rows_columns_and_objectives_of_any_scale_are_solved(family: str) -> None:
    """Rows 1e-8..1e8, columns 1e-4..1e4, objectives 1e-12..1e6; residuals on the user's data."""
    problem = testing.make(family, 6, 20, seed=3)
    rows = torch.logspace(-8, 8, problem["G"].shape[-2], dtype=D)
    columns = torch.logspace(-4, 4, 6, dtype=D)
    scaled = problem | {"G": rows[:, None] * problem["G"]}
    scaled |= {k: rows * problem[k] for k in ("h", "h_lower") if k in problem}
    stretched = {k: v * columns if k in "qGA" else v for k, v in problem.items()}
    stretched["Q"] = columns[:, None] * problem["Q"] * columns
    stretched |= {k: problem[k] / columns for k in ("lb", "ub") if k in problem}
    changed = {"rows": scaled, "columns": stretched}
    for power in (-12, -6, 6):
        factor = 10.0**power
        changed[f"1e{power}"] = problem | {"Q": factor * problem["Q"], "q": factor * problem["q"]}
    for where, other in changed.items():
        solution = torchqp.solve_qp(**other)
        assert solution.status.tolist() == [0] * 20, where
        assert_honest(other, solution)


@pytest.mark.parametrize("family", ["strictly_convex", "many_rows", "two_sided", "linear"])
def test_D9_objectives_of_1e12_are_solved(family: str) -> None:
    problem = testing.make(family, 6, 20, seed=3)
    problem |= {"Q": 1e12 * problem["Q"], "q": 1e12 * problem["q"]}
    solution = torchqp.solve_qp(**problem)
    assert solution.status.tolist() == [0] * 20
    assert_honest(problem, solution)


def test_D10_limits_that_almost_meet_have_honest_answers() -> None:
    a = normal(20, 1, 8)
    for power in range(6, 13):
        gap = 10.0**-power
        rows = {"G": torch.cat([a, -a], -2), "h": tensor(0.0, gap)}
        problem = {"Q": torch.eye(8, dtype=D), "q": normal(8, seed=1)} | rows
        solution = torchqp.solve_qp(**problem)
        assert not bool((solution.status > 1).any()), gap
        assert_honest(problem, solution)
        steep = {"G": tensor([1.0, 1.0], [-1.0, -1.0 - gap]), "h": tensor(0.0, -gap)}
        steep |= {"Q": torch.eye(2, dtype=D), "q": torch.ones(2, dtype=D)}
        solution, _ = assert_clean(steep)
        assert int(solution.status) <= 2, gap
        assert_honest(steep, solution)
