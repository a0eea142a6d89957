"""The same policy through cvxpylayers, as its authors have it, and a check of both gradients."""

import torch
from torch import Tensor

import torchqp
from experiments.markowitz_policy.policy import COST, Market, Policy

try:
    import cvxpy as cp
    from cvxpylayers.torch import CvxpyLayer
except ImportError as error:
    CVXPYLAYERS_MISSING: str | None = f"{error}; pip install 'torchqp[experiments]' brings it"
else:
    CVXPYLAYERS_MISSING = None

SCS = {"acceleration_lookback": 0, "max_iters": 10000}  # the authors' settings
CLARABEL = {"solve_method": "Clarabel"}


class CvxpyPolicy(Policy):
    """The policy whose QPs cvxpylayers solves and differentiates."""

    def __init__(self, market: Market, solver: dict) -> None:
        """``solver`` are arguments of cvxpylayers' solver."""
        super().__init__(market, torchqp.KKT())
        funds = len(market.mean)
        h, root, mean = cp.Parameter(funds), cp.Parameter((funds, funds)), cp.Parameter(funds)
        u, after = cp.Variable(funds), cp.Variable(funds)
        costs = COST * cp.norm1(u) + COST * cp.sum(cp.neg(after))
        objective = cp.Maximize(mean @ after - cp.sum_squares(root @ after))
        problem = cp.Problem(objective, [cp.sum(u) + costs <= 0, after == h + u])
        self.peer, self.solver = CvxpyLayer(problem, [h, root, mean], [after]), solver

    def forward(self, holdings: Tensor) -> Tensor:
        """Holdings after trading, ``[trials, funds]``, for any wealth."""
        wealth = holdings.sum(-1, keepdim=True)
        h = holdings / wealth
        trials, funds = h.shape
        root = (self.gamma_root * self.root).expand(trials, funds, funds)
        mean = self.mean.expand(trials, funds)
        return wealth * self.peer(h, root, mean, solver_args=self.solver)[0]


def gradient_check(months: int = 4, step: float = 1e-6, trials: int = 10) -> list[dict]:
    """One random directional derivative of a month's trade, by difference and by each layer.

    Returns:
        for each of the first months: the central difference, what each layer says instead, and how
        far cvxpylayers' holdings are from ours.
    """
    market = Market.load()
    generator = torch.Generator().manual_seed(0)
    policy = Policy(market, torchqp.KKT())
    layers = {"torchqp": policy}
    if CVXPYLAYERS_MISSING is None:
        layers["cvxpylayers, SCS"] = CvxpyPolicy(market, SCS)
        layers["cvxpylayers, Clarabel"] = CvxpyPolicy(market, CLARABEL)
    returns = market.returns(trials, seed=0)
    holdings = policy.start().expand(trials, -1)
    rows = []
    for month in range(months):
        weights = torch.randn(holdings.shape, generator=generator, dtype=torch.float64)
        directions = [
            scale * torch.randn(p.shape, generator=generator, dtype=torch.float64)
            for p, scale in ((policy.mean, 1e-3), (policy.root, 1e-2))
        ]
        values = []
        with torch.no_grad():
            for sign in (1.0, -1.0):
                moved = Policy(market, torchqp.KKT())
                moved.mean += sign * step * directions[0]
                moved.root += sign * step * directions[1]
                values.append(float((moved(holdings) * weights).sum()))
            trade = policy(holdings)
        row = {"difference": (values[0] - values[1]) / (2.0 * step)}
        for name, layer in layers.items():
            after = layer(holdings)
            pair = (layer.mean, layer.root)
            gradients = torch.autograd.grad((after * weights).sum(), pair)
            row[name] = float(
                sum((g * d).sum() for g, d in zip(gradients, directions, strict=True))
            )
            if layer is not policy:
                row[f"{name}: error of holdings"] = float((after.detach() - trade).abs().max())
        rows.append(row)
        holdings = returns[:, month] * trade
    return rows
