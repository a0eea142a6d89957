"""Layers: a QP whose data come from the network, a projection, and a QP with learned data."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from torchqp._batch import full_precision, product
from torchqp._elastic import check_elastic
from torchqp.backward import Backward, resolve_backward
from torchqp.functional import Diag, check_on_failure, solve_for_z, solve_qp
from torchqp.settings import Settings, check_settings
from torchqp.solution import Solution


class _Layer(nn.Module):
    """What all layers share: derivative, stopping rule, policy on failure."""

    def __init__(
        self, backward: str | Backward, settings: Settings | None, on_failure: str
    ) -> None:
        super().__init__()
        self.backward = resolve_backward(backward)
        self.settings = check_settings(settings)
        check_on_failure(on_failure)
        self.on_failure = on_failure

    def extra_repr(self) -> str:
        """The options that are not defaults, after the backward mode."""
        parts = [f"backward={self.backward}"]
        if self.settings != Settings():
            parts.append(f"settings={self.settings}")
        if self.on_failure != "nan":
            parts.append(f"on_failure={self.on_failure!r}")
        return ", ".join(parts)


class QPLayer(_Layer):
    """Solves the QPs that it is given, as `torchqp.solve_qp`; holds no parameters.

    Args:
        backward: "kkt", "smoothed", "lpgd" or a mode object.
        settings: tolerances and limits; None is the dtype's defaults.
        on_failure: "nan" or "best", see `solve_qp`.
        return_solution: forward returns the `Solution` instead of z.
        elastic: weight with which infeasible members are softened, see `solve_qp`.

    Example:
        >>> import torch, torchqp
        >>> layer = torchqp.QPLayer(backward="lpgd")
        >>> layer(torch.eye(2), torch.tensor([1.0, -1.0]), lb=0.0).round(decimals=3).tolist()
        [0.0, 1.0]
    """

    def __init__(
        self,
        backward: str | Backward = "kkt",
        settings: Settings | None = None,
        on_failure: str = "nan",
        return_solution: bool = False,
        elastic: float | None = None,
    ) -> None:
        """See the class."""
        super().__init__(backward, settings, on_failure)
        check_elastic(elastic)
        self.return_solution = return_solution
        self.elastic = elastic

    def forward(
        self,
        Q: Tensor | Diag,
        q: Tensor,
        G: Tensor | None = None,
        h: Tensor | float | None = None,
        A: Tensor | None = None,
        b: Tensor | float | None = None,
        lb: Tensor | float | None = None,
        ub: Tensor | float | None = None,
        *,
        h_lower: Tensor | float | None = None,
        warm_start: Solution | None = None,
    ) -> Any:
        """The minimiser z [*, n], or the `Solution`. Arguments as `torchqp.solve_qp`."""
        if self.return_solution or warm_start is not None or self.elastic is not None:
            solution = solve_qp(
                Q,
                q,
                G,
                h,
                A,
                b,
                lb,
                ub,
                h_lower=h_lower,
                backward=self.backward,
                settings=self.settings,
                warm_start=warm_start,
                on_failure=self.on_failure,
                elastic=self.elastic,
            )
            return solution if self.return_solution else solution.z
        return solve_for_z(
            Q, q, G, h, A, b, lb, ub, h_lower, self.backward, self.settings, self.on_failure
        )

    def extra_repr(self) -> str:
        """As the base, what is returned, and the weight of the elastic answer."""
        parts = [super().extra_repr()]
        parts += ["return_solution=True"] * self.return_solution
        parts += [f"elastic={self.elastic}"] * (self.elastic is not None)
        return ", ".join(parts)


class Projection(_Layer):
    """The Euclidean projection onto a polyhedron.

        z(w) = argmin 1/2 ||z - w||^2   s.t.  Az = b,  h_lower <= Gz <= h,  lb <= z <= ub

    With `Smoothed(alpha=...)` this is the decision layer of "You Shall Pass" (arXiv 2307.16304).
    The set is fixed: tensors become buffers, which move and are saved with the module; an
    nn.Parameter is learned; numbers stay numbers.

    Args:
        A: [*, p, n].
        b: [*, p] or a number.
        G: [*, m, n].
        h: [*, m] or a number.
        lb: [*, n] or a number.
        ub: [*, n] or a number.
        h_lower: [*, m] or a number.
        backward: "kkt", "smoothed", "lpgd" or a mode object.
        settings: tolerances and limits; None is the dtype's defaults.
        on_failure: "nan" or "best", see `solve_qp`.

    Raises:
        TypeError: an argument that is neither a tensor nor, where allowed, a number.

    Example:
        >>> import torch, torchqp
        >>> simplex = torchqp.Projection(A=torch.ones(1, 3).double(), b=1.0, lb=0.0)
        >>> simplex(torch.tensor([0.9, 0.5, -3.0]).double()).round(decimals=6).tolist()
        [0.7, 0.3, 0.0]
    """

    A: Tensor | None
    G: Tensor | None

    def __init__(
        self,
        A: Tensor | None = None,
        b: Tensor | float | None = None,
        G: Tensor | None = None,
        h: Tensor | float | None = None,
        lb: Tensor | float | None = None,
        ub: Tensor | float | None = None,
        h_lower: Tensor | float | None = None,
        backward: str | Backward = "kkt",
        settings: Settings | None = None,
        on_failure: str = "nan",
    ) -> None:
        """See the class."""
        super().__init__(backward, settings, on_failure)
        data = {"A": A, "b": b, "G": G, "h": h, "lb": lb, "ub": ub, "h_lower": h_lower}
        for name, value in data.items():
            if isinstance(value, nn.Parameter):
                self.register_parameter(name, value)
            elif value is None or isinstance(value, Tensor):
                self.register_buffer(name, value)
            elif (
                isinstance(value, (int, float))
                and not isinstance(value, bool)
                and name not in ("A", "G")
            ):
                setattr(self, name, float(value))
            else:
                expected = "a torch.Tensor" if name in ("A", "G") else "a torch.Tensor or a number"
                raise TypeError(f"{name}: expected {expected}, got {type(value).__name__}")

    def forward(self, w: Tensor) -> Tensor:
        """The projection [*, n] of w [*, n]."""
        if not isinstance(w, Tensor):
            raise TypeError(f"w: expected a torch.Tensor, got {type(w).__name__}")
        if w.dim() < 1:
            raise ValueError("w: expected shape [*, n], got a 0-d tensor")
        identity = Diag(w.new_ones(w.shape[-1]))
        return solve_for_z(
            identity,
            -w,
            self.G,
            self.h,
            self.A,
            self.b,
            self.lb,
            self.ub,
            self.h_lower,
            self.backward,
            self.settings,
            self.on_failure,
        )

    def extra_repr(self) -> str:
        """Shapes of the set's data, then the base's options."""
        parts = []
        for name in ("A", "b", "G", "h", "h_lower", "lb", "ub"):
            value = getattr(self, name)
            if value is not None:
                parts.append(f"{name}={list(value.shape) if isinstance(value, Tensor) else value}")
        return ", ".join([*parts, super().extra_repr()])


class OptNet(_Layer):
    """A QP layer with learned matrix and constraints, feasible by construction (OptNet).

        z(q) = argmin 1/2 z'Qz + q'z  s.t.  Az = b,  Gz <= h,     Q = LL' + eps I,  h = G z0 + s0,
        b = A z0

    z0 satisfies all constraints while s0 >= 0; L is read as lower triangular.

    Args:
        n: variables.
        n_ineq: rows of G.
        n_eq: rows of A.
        eps: added to the diagonal of LL'.
        backward: "kkt", "smoothed", "lpgd" or a mode object.
        settings: tolerances and limits; None is the dtype's defaults.
        on_failure: "nan" or "best", see `solve_qp`.
        device: where the parameters are made.
        dtype: of the parameters.

    Raises:
        ValueError: n < 1, a negative number of rows, or eps < 0.

    Source: Amos and Kolter, OptNet (2017), section 3.2 and the authors' Sudoku and classification
        models: L uniform on
    (0, 1), G and A uniform on (-1, 1), z0 = 0, s0 = 1.

    Example:
        >>> import torch, torchqp
        >>> layer = torchqp.OptNet(n=10, n_ineq=10, n_eq=0)
        >>> layer(torch.randn(3, 10)).shape
        torch.Size([3, 10])
    """

    def __init__(
        self,
        n: int,
        n_ineq: int,
        n_eq: int = 0,
        eps: float = 1e-4,
        backward: str | Backward = "kkt",
        settings: Settings | None = None,
        on_failure: str = "nan",
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """See the class."""
        super().__init__(backward, settings, on_failure)
        for name, value, least in (
            ("n", n, 1),
            ("n_ineq", n_ineq, 0),
            ("n_eq", n_eq, 0),
            ("eps", eps, 0),
        ):
            if not value >= least:
                raise ValueError(f"{name}: expected at least {least}, got {value!r}")
        self.n, self.n_ineq, self.n_eq, self.eps = n, n_ineq, n_eq, eps
        new = {"device": device, "dtype": dtype}
        self.L = nn.Parameter(torch.empty(n, n, **new))
        self.z0 = nn.Parameter(torch.empty(n, **new))
        self.G = nn.Parameter(torch.empty(n_ineq, n, **new)) if n_ineq else None
        self.s0 = nn.Parameter(torch.empty(n_ineq, **new)) if n_ineq else None
        self.A = nn.Parameter(torch.empty(n_eq, n, **new)) if n_eq else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws the parameters anew; see the class."""
        with torch.no_grad():
            self.L.uniform_(0, 1).tril_()
            self.z0.zero_()
            if self.G is not None and self.s0 is not None:
                self.G.uniform_(-1, 1)
                self.s0.fill_(1.0)
            if self.A is not None:
                self.A.uniform_(-1, 1)

    def problem(self) -> dict[str, Any]:
        """Q, G, h, A, b as they are now, for `solve_qp`."""
        with full_precision(self.L.device):
            L = self.L.tril()
            Q = product(L, L.mT) + self.eps * torch.eye(self.n, dtype=L.dtype, device=L.device)
            h = None if self.G is None or self.s0 is None else product(self.G, self.z0) + self.s0
            b = None if self.A is None else product(self.A, self.z0)
        return {"Q": Q, "G": self.G, "h": h, "A": self.A, "b": b}

    def forward(self, q: Tensor) -> Tensor:
        """The minimiser [*, n] for q [*, n]."""
        data = self.problem()
        return solve_for_z(
            data["Q"],
            q,
            data["G"],
            data["h"],
            data["A"],
            data["b"],
            None,
            None,
            None,
            self.backward,
            self.settings,
            self.on_failure,
        )

    def extra_repr(self) -> str:
        """Sizes, then the base's options."""
        return f"n={self.n}, n_ineq={self.n_ineq}, n_eq={self.n_eq}, {super().extra_repr()}"
