"""The training losses: PyEPO's with the options of its own notebook, and ours."""

from collections.abc import Callable

from pyepo import func
from torch import Tensor
from torch.nn.functional import l1_loss, mse_loss

import torchqp
from experiments.pyepo_grid.paths import FlowLayer, GridModel

# loss(predicted costs, true costs, best paths, their lengths)
Loss = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]

# The weight gamma of the quadratic term, 0 for the linear program itself, and the backward.
OURS: dict[str, tuple[float, torchqp.backward.Backward]] = {
    **{f"exact, gamma {gamma:g}": (gamma, torchqp.KKT()) for gamma in (0.1, 1.0, 10.0)},
    **{f"smoothed, gamma {gamma:g}": (gamma, torchqp.Smoothed()) for gamma in (0.1, 1.0, 10.0)},
    **{
        f"LPGD {side}, tau {tau:g}": (0.0, torchqp.LPGD(tau=tau, side=side))
        for side in ("average", "lower")
        for tau in (0.3, 1.0, 3.0)
    },
    "LPGD average, tau 0.3, gamma 1": (1.0, torchqp.LPGD(tau=0.3)),
}
SHOWN = (
    "exact, gamma 1",
    "smoothed, gamma 0.1",
    "LPGD average, tau 1",
    "LPGD average, tau 0.3, gamma 1",
)
PYEPO = ("SPO+", "PG", "DPO", "PFY", "I-MLE", "DBB", "NID")
TWO_STAGE = "MSE"
NAMES = (TWO_STAGE, *PYEPO, *OURS)

# Final and best test regret in percent over 20 epochs, and seconds, of PyEPO's notebook 03.
NOTEBOOK = {
    "SPO+": (7.59, 7.07, 165),
    "PG": (14.16, 13.96, 223),
    "DPO": (9.88, 9.88, 306),
    "PFY": (7.29, 7.23, 297),
    "I-MLE": (12.07, 12.07, 609),
    "DBB": (15.12, 9.32, 298),
    "NID": (8.90, 8.90, 156),
}


def build(name: str, model: GridModel) -> Loss:
    """The loss called ``name``."""
    if name in OURS:
        layer = FlowLayer(model, *OURS[name])
        return lambda c_hat, c, w, z: (layer(c_hat) * c).sum(-1).mean()
    if name == TWO_STAGE:
        return lambda c_hat, c, w, z: mse_loss(c_hat, c)
    if name == "SPO+":
        return func.SPOPlus(model)
    if name == "PG":
        gradient = func.perturbationGradient(model, sigma=0.1, two_sides=False)
        return lambda c_hat, c, w, z: gradient(c_hat, c)
    if name == "PFY":
        fenchel_young = func.perturbedFenchelYoung(model, n_samples=3, sigma=1.0)
        return lambda c_hat, c, w, z: fenchel_young(c_hat, w)
    if name == "DPO":
        perturbed = func.perturbedOpt(model, n_samples=3, sigma=1.0)
        return lambda c_hat, c, w, z: l1_loss(perturbed(c_hat), w)
    if name == "I-MLE":
        implicit = func.implicitMLE(model, n_samples=3, sigma=1.0, lambd=10)
        return lambda c_hat, c, w, z: l1_loss(implicit(c_hat), w)
    if name in ("DBB", "NID"):
        layer = func.blackboxOpt(model, lambd=20) if name == "DBB" else func.negativeIdentity(model)
        return lambda c_hat, c, w, z: l1_loss((layer(c_hat) * c).sum(-1, keepdim=True), z)
    raise ValueError(f"name: expected one of {NAMES}, got {name!r}")
