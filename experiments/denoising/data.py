"""Noisy piecewise constant signals, as OptNet's authors draw them.

Each of 10,000 signals of length 100 has k ~ randint(1, 10) pieces with heights ~ randint(10, 100)
and noise of standard deviation 10. numpy's legacy generator is frozen, so that seed 0 gives the
same bits everywhere; the checksums prove it.
"""

import hashlib
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

LENGTH, SIGNALS, TRAIN, TEST = 100, 10_000, 9_000, 1_000
VALIDATION = 500  # the last of the training signals; the paper has no validation set
SHA256 = {
    "noisy": "971ea09859f240214c1d6a5d0a264386cfc8c1cc1d38b6d5583da8fe9beb171f",
    "clean": "235875138f114e0a7f2750fc91f8a291de77434a02b28e1a3324cbcab1e5205d",
}


@dataclass(frozen=True)
class Signals:
    """All signals, float64 ``[SIGNALS, LENGTH]``, and the indices of the three parts."""

    noisy: Tensor
    clean: Tensor
    train: Tensor
    validation: Tensor
    test: Tensor


@lru_cache(maxsize=1)
def load() -> Signals:
    """Draws the signals.

    Raises:
        ValueError: this numpy draws other numbers.
    """
    rng = np.random.RandomState(0)
    noisy = np.empty((SIGNALS, LENGTH), np.float32)
    clean = np.empty_like(noisy)
    for row in range(SIGNALS):
        pieces = rng.randint(1, 10)
        cuts = np.sort(rng.choice(LENGTH - 2, pieces - 1, replace=False) + 1)
        heights = rng.randint(10, 100, pieces)
        clean[row] = np.repeat(heights, np.diff([0, *cuts, LENGTH]))
        noisy[row] = clean[row] + rng.normal(0, 10, LENGTH)
    for name, array in (("noisy", noisy), ("clean", clean)):
        digest = hashlib.sha256(array.astype("<f4").tobytes()).hexdigest()
        if digest != SHA256[name]:
            raise ValueError(f"{name}: expected SHA-256 {SHA256[name]}, got {digest}")
    rows = torch.arange(SIGNALS)
    return Signals(
        noisy=torch.from_numpy(noisy).double(),
        clean=torch.from_numpy(clean).double(),
        train=rows[: TRAIN - VALIDATION],
        validation=rows[TRAIN - VALIDATION : TRAIN],
        test=rows[TRAIN:],
    )
