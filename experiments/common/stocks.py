"""Stock data of "You Shall Pass": features of a day, the next day's returns and risk.

The recipe is that of Wang et al. (NeurIPS 2020), which "You Shall Pass" uses: 28 features a stock
and day from closes up to that day; p is the next day's return; the risk matrix Q holds the cosine
similarities of the stocks' returns on the nine days after it. Here p is in percent.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from torch import Tensor

from experiments.common.decisions import Samples
from experiments.common.record import load_npz
from experiments.common.training import split_indices

FILE = Path(__file__).resolve().parents[1] / "data" / "stocks_5yr" / "sp500_2013_2018.npz"
SHA256 = "2668226c5974f0a8ae1ec6755290d915000c9963d61b26da1d7b867c0c036ba0"

FEATURE_SETS = ("real", "forecast")
FORECAST_CORRELATION = 0.5  # of the `forecast` set's extra feature with the next day's return
HIDDEN = (256, 256)  # of the paper's network
LAST_DAY = 20171231  # the paper's data end with 2017
LOOK_BACK, LOOK_AHEAD = 365, 10  # in trading days


@dataclass(frozen=True)
class StockData(Samples):
    """One seed's samples, a sample being a trading day; features are standardised.

    Attributes:
        returns: next day's returns p in percent, float64 ``[samples, stocks]``.
        risk: positive definite Q, float64 ``[samples, stocks, stocks]``.
    """

    returns: Tensor
    risk: Tensor


def load(seed: int, feature_set: str, stocks: int = 50) -> StockData:
    """Draws tickers and split (and the forecast's noise) from ``seed`` and builds the samples."""
    if feature_set not in FEATURE_SETS:
        raise ValueError(f"feature_set: expected one of {FEATURE_SETS}, got {feature_set!r}")
    rng = np.random.default_rng(seed)
    raw = load_npz(FILE, SHA256)
    rows = rng.choice(np.flatnonzero(raw["clean"]), stocks, replace=False)
    close = raw["close"][rows].astype(np.float64)

    daily = np.full_like(close, np.nan)  # column t: return from day t - 1 to day t
    daily[:, 1:] = close[:, 1:] / close[:, :-1] - 1.0
    last = min(int((raw["dates"] <= LAST_DAY).sum()), close.shape[1] - LOOK_AHEAD)
    days = np.arange(LOOK_BACK, last)

    returns = 100.0 * daily[:, days + 1]
    features = _standardise(_features(close, daily)[:, days])
    if feature_set == "forecast":
        features = np.concatenate([features, _forecast(returns, rng)[..., None]], axis=-1)

    generator = torch.Generator().manual_seed(seed)
    train, validation, test = split_indices(len(days), (0.7, 0.2), generator)
    flat = features.transpose(1, 0, 2).reshape(len(days), -1)
    return StockData(
        features=torch.from_numpy(flat).float(),
        returns=torch.from_numpy(returns.T.copy()),
        risk=torch.from_numpy(_risk(daily, days)),
        train=train,
        validation=validation,
        test=test,
    )


def simplex(stocks: int) -> dict[str, Tensor | float]:
    """The constraints sum x = 1, x >= 0 as arguments of torchqp."""
    return {"A": torch.ones(1, stocks, dtype=torch.float64), "b": 1.0, "lb": 0.0}


def best_stock(returns: Tensor, indices: Tensor) -> Tensor:
    """Everything in the stock with the largest return: the best decision if nothing is a risk."""
    return torch.nn.functional.one_hot(returns.argmax(-1), returns.shape[-1]).double()


def _features(close: np.ndarray, daily: np.ndarray) -> np.ndarray:
    """The 28 features, ``[stocks, days, 28]``; NaN on days without enough past."""
    columns = [_shift(daily, lag) for lag in range(11)]
    columns += [close / _shift(close, lag) - 1.0 for lag in (365, 120, 30, 7)]
    columns += _rolling(daily, 7)
    for window in (365, 120, 30, 7, 3):
        columns += _rolling(close, window)
    columns.append(close)
    return np.stack(columns, axis=-1)


def _shift(values: np.ndarray, lag: int) -> np.ndarray:
    shifted = np.full_like(values, np.nan)
    shifted[:, lag:] = values[:, : values.shape[1] - lag]
    return shifted


def _rolling(values: np.ndarray, window: int) -> list[np.ndarray]:
    """Mean and sample variance of the last ``window`` days, the current one included."""
    mean, variance = np.full_like(values, np.nan), np.full_like(values, np.nan)
    for stock, series in enumerate(values):  # one stock at a time keeps the temporaries small
        windows = sliding_window_view(series, window)
        mean[stock, window - 1 :] = windows.mean(-1)
        variance[stock, window - 1 :] = windows.var(-1, ddof=1)
    return [mean, variance]


def _standardise(features: np.ndarray) -> np.ndarray:
    mean = features.mean(axis=(0, 1))
    return (features - mean) / (features.std(axis=(0, 1)) + 1e-5)


def _forecast(returns: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The standardised return mixed with noise, so that it correlates with the return by 0.5."""
    standard = (returns - returns.mean()) / returns.std()
    noise = rng.standard_normal(returns.shape)
    return FORECAST_CORRELATION * standard + np.sqrt(1 - FORECAST_CORRELATION**2) * noise


def _risk(daily: np.ndarray, days: np.ndarray) -> np.ndarray:
    """0.9 times the cosine similarity of the stocks' next 2..10 returns, plus 0.1 I."""
    ahead = np.stack([daily[:, days + lag] for lag in range(2, LOOK_AHEAD + 1)], axis=-1)
    ahead = ahead.transpose(1, 0, 2)
    unit = ahead / np.linalg.norm(ahead, axis=-1, keepdims=True)
    return 0.9 * unit @ unit.transpose(0, 2, 1) + 0.1 * np.eye(len(daily))
