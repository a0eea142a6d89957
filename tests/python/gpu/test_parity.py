"""The ruler that the other files here measure with; needs no GPU."""

import pytest
import torch
from parity import assert_equal, difference, ulps


def after(value: float, dtype: torch.dtype, steps: int = 1) -> torch.Tensor:
    """The number so many steps above."""
    x = torch.tensor([value], dtype=dtype)
    for _ in range(steps):
        x = torch.nextafter(x, torch.full_like(x, torch.inf))
    return x


@pytest.mark.parametrize("value", [1.0, -1.0, 1e-30, -3e20, 0.0])
def test_neighbours_are_one_ulp_apart(value, dtype):
    x = torch.tensor([value], dtype=dtype)
    assert ulps(x, x) == 0
    assert ulps(x, after(value, dtype)) == 1
    assert ulps(after(value, dtype, 3), x) == 3


def test_zeros_and_nans_are_equal_and_signs_are_counted(dtype):
    nan, zero = torch.tensor([torch.nan], dtype=dtype), torch.zeros(1, dtype=dtype)
    assert ulps(zero, -zero) == 0
    assert ulps(nan, nan) == 0
    assert ulps(nan, zero) == float("inf")
    below = -after(0.0, dtype)
    assert ulps(below, after(0.0, dtype)) == 2
    assert ulps(torch.tensor([3]), torch.tensor([1])) == 2


def test_one_ulp_is_reported_and_a_tolerance_forgives_it(dtype):
    x = torch.tensor([1.0, torch.nan, torch.inf], dtype=dtype)
    moved = x.clone()
    moved[0] = after(1.0, dtype)[0]
    assert difference("x", x, x.clone(), None) == []
    (said,) = difference("x", x, moved, None)
    assert said.startswith("x: 1 of 3 entries differ, at most by 1 ulps")
    assert difference("x", x, moved, 1e-6) == []
    for wrong in (2.0, torch.nan, torch.inf):
        moved[0] = wrong
        assert difference("x", x, moved, 1e-6) != []
    assert difference("x", x, moved[:2], None) != []
    assert difference("x", x, moved.half(), None) != []
    with pytest.raises(AssertionError, match="x: 1 of 3"):
        assert_equal({"x": x}, {"x": moved}, ["x"])
