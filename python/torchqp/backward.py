"""How a solve is differentiated: exact, smoothed-set or LPGD. The solution is the same for all."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar


def check_number(
    owner: str, name: str, value: Any, *, positive: bool, infinite: bool = False
) -> None:
    """Raises TypeError or ValueError, naming owner and option, unless value is such a number."""
    expected = (
        f"a {'positive' if positive else 'non-negative'}{'' if infinite else ' finite'} number"
    )
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{owner}.{name}: expected {expected}, got {value!r}")
    inside = value > 0 if positive else value >= 0
    if not inside or (math.isinf(value) and not infinite):
        raise ValueError(f"{owner}.{name}: expected {expected}, got {value!r}")


def _check_choice(owner: str, name: str, value: Any, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{owner}.{name}: expected one of {choices}, got {value!r}")


@dataclass(frozen=True)
class KKT:
    """Exact derivatives: the optimality conditions on the active set, differentiated implicitly.

    Supports double backward and forward-mode AD. The gradient with respect to Q and q is exactly
    zero wherever the cotangent lies in the span of the active constraints' normals (at a vertex:
    always); `Smoothed` and `LPGD` are the ways out. Where the active set is degenerate the linear
    system is singular and a regularised finite answer is given.

    Source: Amos and Kolter, OptNet (2017), eq. 6 to 8.

    Example:
        >>> import torchqp
        >>> torchqp.QPLayer(backward=torchqp.KKT())
        QPLayer(backward=KKT())
    """

    name: ClassVar[str] = "kkt"

    def options(self) -> list[float]:
        """The operator's `backward_options`."""
        return []


@dataclass(frozen=True)
class Smoothed:
    r"""Smoothed-set gradients: one supporting half-space replaces all active constraints.

    With the aggregated normal a = G'lam + A'nu + lam_ub - lam_lb = -(Qz + q), the gradient is the
    exact one of min 1/2 z'Qz + q'z s.t. a'z <= a'z*:

        mu = -(a'Q^-1 g) / (a'Q^-1 a)    d_z = -Q^-1 (g + mu a)    d_lam = mu lam    d_nu = mu nu

    Only one direction of the cotangent is lost, not the span of all active normals. For Q = I,
    q = -w (`Projection`) this is Algorithm 1 of the paper with its missing square restored, and to
    first order a step does not increase the loss where the active normals are independent and
    strictly complementary; for another Q that holds for w = -Q^-1 q with steps measured by Q.

    A solution is taken as interior, no constraint active, when ||a||_inf <= 10 max(eps_abs,
    eps_rel) (1 + ||q||_inf). A singular Q is replaced by Q + 1e-6 max(1, ||Q||_max) I in these
    formulas. One derivative only: double backward and forward-mode AD raise RuntimeError.

    Attributes:
        alpha: weight >= 0 of the gradient of (z - w)'Q(z - w), w = -Q^-1 q, with respect to Q and
            q; it pulls w to the feasible set and is added as it is, whatever the loss.
        radius: replaces the half-space by a ball of this radius (> 0); inf is the half-space, and
            recommended.
        smooth_equalities: True aggregates Az = b too, as the paper does; False keeps Az = b exact.
        metric: what the ball is measured in. "euclidean": Q becomes Q + (||a|| / radius) I. "Q":
            the result is scaled by 1 / (1 + sqrt(a'Q^-1 a) / radius).

    Source: Veviurko, Boehmer and de Weerdt, "You Shall Pass" (arXiv 2307.16304), Definition 3.10
        and Algorithm 1.

    Example:
        >>> import torch, torchqp
        >>> w = torch.tensor([2.0, 1.0], dtype=torch.float64, requires_grad=True)
        >>> torchqp.Projection(ub=0.0, backward=torchqp.Smoothed())(w).sum().backward()
        >>> [round(x, 6) for x in w.grad.tolist()]  # (1, 1) less its part along (2, 1)
        [-0.2, 0.4]
    """

    alpha: float = 0.0
    radius: float = math.inf
    smooth_equalities: bool = True
    metric: str = "euclidean"
    name: ClassVar[str] = "smoothed"

    def __post_init__(self) -> None:
        """Checks the options."""
        check_number("Smoothed", "alpha", self.alpha, positive=False)
        check_number("Smoothed", "radius", self.radius, positive=True, infinite=True)
        if not isinstance(self.smooth_equalities, bool):
            raise TypeError(
                f"Smoothed.smooth_equalities: expected a bool, got {self.smooth_equalities!r}"
            )
        _check_choice("Smoothed", "metric", self.metric, ("euclidean", "Q"))

    def options(self) -> list[float]:
        """The operator's `backward_options`: alpha, 1 / radius (finite), two flags."""
        return [
            float(self.alpha),
            1.0 / self.radius,
            float(self.smooth_equalities),
            float(self.metric == "Q"),
        ]


@dataclass(frozen=True)
class LPGD:
    r"""Lagrangian proximal gradients: finite differences of the solution map along the cotangent.

    The problem is solved again with q + t g_z, b - t g_nu, h - t g_lam, ... at t = +tau and t =
    -tau, warm started, and grad_theta = (dL/dtheta(+tau) - dL/dtheta(-tau)) / (2 tau). It equals
    the exact gradient while the active set stays the same, and is informative beyond: tau decides
    how far it looks. One derivative only: double backward and forward-mode AD raise RuntimeError.

    A zero cotangent gives exactly zero. If one of the two problems fails ("average"), the other
    side alone is used; if every side asked for fails, the member contributes zero.

    Attributes:
        tau: step > 0. See tau_mode. Far above the tolerances: the gradient's error is about eps /
            tau.
        tau_mode: "relative": the step of each member is tau (1 + ||q||_inf) / ||g||_inf, g all its
            cotangents, so that the loss's scale does not matter; "absolute": the step is tau.
        side: "lower" ((+tau) - (0)) / tau; "upper" ((0) - (-tau)) / tau; "average" is the mean of
            both, one batch.
        rho: >= 0, adds rho/2 ||z - z*||^2 to the perturbed problems (diffcp's convention), for LPs
            that would jump. As tau goes to 0 the limit is the exact gradient with Q + rho I, not
            with Q.

    Source: Paulus, Martius and Musil, LPGD (2024), eq. 2.1 for envelopes; diffcp's `lpgd` mode for
        conventions.

    Example:
        >>> import torchqp
        >>> torchqp.QPLayer(backward=torchqp.LPGD(tau=0.5, side="lower"))
        QPLayer(backward=LPGD(tau=0.5, tau_mode='relative', side='lower', rho=0.0))
    """

    tau: float = 0.1
    tau_mode: str = "relative"
    side: str = "average"
    rho: float = 0.0
    name: ClassVar[str] = "lpgd"

    def __post_init__(self) -> None:
        """Checks the options."""
        check_number("LPGD", "tau", self.tau, positive=True)
        _check_choice("LPGD", "tau_mode", self.tau_mode, ("relative", "absolute"))
        _check_choice("LPGD", "side", self.side, ("lower", "upper", "average"))
        check_number("LPGD", "rho", self.rho, positive=False)

    def options(self) -> list[float]:
        """The operator's `backward_options`: tau, whether it is relative, the side's index, rho."""
        side = ("lower", "upper", "average").index(self.side)
        return [float(self.tau), float(self.tau_mode == "relative"), float(side), float(self.rho)]


Backward = KKT | Smoothed | LPGD
_BY_NAME: dict[str, Backward] = {mode.name: mode for mode in (KKT(), Smoothed(), LPGD())}


def resolve_backward(backward: str | Backward) -> Backward:
    """The mode that a user means by "kkt", "smoothed", "lpgd" or a mode object.

    Raises:
        ValueError: an unknown name.
        TypeError: neither a name nor a mode.
    """
    if isinstance(backward, str):
        if backward not in _BY_NAME:
            raise ValueError(
                f"backward: expected one of {tuple(_BY_NAME)} or KKT, Smoothed, LPGD, "
                f"got {backward!r}"
            )
        return _BY_NAME[backward]
    if not isinstance(backward, (KKT, Smoothed, LPGD)):
        raise TypeError(f"backward: expected a name or KKT, Smoothed, LPGD, got {backward!r}")
    return backward
