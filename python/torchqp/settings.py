"""When a solve stops, and which of its policies a user may choose."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

_DEFAULT_EPS = {torch.float64: 1e-8, torch.float32: 1e-4}
_DEFAULT_MAX_ITER = 100


@dataclass(frozen=True)
class Settings:
    """Stopping rule of a solve. None stands for the dtype's default.

    A residual r made of terms of which the largest has infinity norm g is accepted when r <=
    eps_abs + eps_rel g. This holds for stationarity, primal feasibility, the signs of the
    multipliers and the duality gap, on the caller's data.

    Attributes:
        eps_abs: absolute tolerance, infinity norm; default 1e-8 in float64, 1e-4 in float32.
        eps_rel: relative tolerance; same defaults.
        max_iter: interior-point iterations, or rounds of pivoting; default 100.
        polish: look for the active set, by pivoting before the interior point where Q is positive
            definite and after it else, and end with a solve on it: exact solution and gradients.
            False: the interior point alone.

    Raises:
        TypeError: a field of the wrong type.
        ValueError: a negative or non-finite field.

    Example:
        >>> from torchqp import Settings
        >>> Settings(eps_abs=1e-6, eps_rel=0.0).max_iter is None
        True
    """

    eps_abs: float | None = None
    eps_rel: float | None = None
    max_iter: int | None = None
    polish: bool = True

    def __post_init__(self) -> None:
        """Checks the fields."""
        for name in ("eps_abs", "eps_rel"):
            value = getattr(self, name)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise TypeError(f"Settings.{name}: expected a number or None, got {value!r}")
            if not (value >= 0 and math.isfinite(value)):
                raise ValueError(f"Settings.{name}: expected a finite number >= 0, got {value!r}")
        if self.max_iter is not None:
            if isinstance(self.max_iter, bool) or not isinstance(self.max_iter, int):
                raise TypeError(
                    f"Settings.max_iter: expected an integer or None, got {self.max_iter!r}"
                )
            if self.max_iter < 0:
                raise ValueError(
                    f"Settings.max_iter: expected an integer >= 0, got {self.max_iter!r}"
                )
        if not isinstance(self.polish, bool):
            raise TypeError(f"Settings.polish: expected a bool, got {self.polish!r}")

    def resolve(self, dtype: torch.dtype) -> tuple[float, float, int, bool]:
        """(eps_abs, eps_rel, max_iter, polish) with the defaults of this dtype filled in."""
        eps = _DEFAULT_EPS.get(dtype, 1e-8)
        return (
            eps if self.eps_abs is None else float(self.eps_abs),
            eps if self.eps_rel is None else float(self.eps_rel),
            _DEFAULT_MAX_ITER if self.max_iter is None else self.max_iter,
            self.polish,
        )


DEFAULT = Settings()


def check_settings(settings: Settings | None) -> Settings:
    """The settings a user means; None is all defaults.

    Raises:
        TypeError: something else than Settings.
    """
    if settings is None:
        return DEFAULT
    if not isinstance(settings, Settings):
        raise TypeError(f"settings: expected torchqp.Settings or None, got {settings!r}")
    return settings
