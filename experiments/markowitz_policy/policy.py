"""A Markowitz trading policy as a QP layer, and the market in which it trades.

From holdings h that sum to one the policy chooses the holdings h+ after trading:

    max  mu'h+ - gamma ||S h+||^2   s.t.  1'(h+ - h) + kappa 1'|h+ - h| + kappa 1'(h+)_- <= 0

mu, S and sqrt(gamma) are learned. The absolute value and the negative part become variables of
their own, so that the QP has 36 variables; its Hessian is singular in 24 of them.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

import torchqp
from experiments.common import load_npz

FILE = Path(__file__).resolve().parents[1] / "data" / "markowitz_policy" / "cocp_markowitz.npz"
SHA256 = "9dbacc3ab30b34ec849dca93bc140f70c06d4dc729f4c2db6242e2b222f0c05b"

COST = 0.001  # of a trade and of a short position, as a share of its size
GAMMA = 15.0  # risk aversion before tuning
MONTHS = 24
LOSS_SLOPE, GAIN_SLOPE = 2.0, 1.0  # of the utility of a month's growth


@dataclass(frozen=True)
class Market:
    """What is known of the twelve funds, and the law of their returns.

    Attributes:
        mean, covariance: of a month's gross returns; what the policy starts from.
        law: of the logarithm of a month's gross returns.
    """

    mean: Tensor
    covariance: Tensor
    law: torch.distributions.MultivariateNormal

    @classmethod
    def load(cls) -> "Market":
        """Reads the market that the authors fitted to historical returns."""
        raw = {
            name: torch.from_numpy(a)
            for name, a in load_npz(FILE, SHA256).items()
            if name != "etfs"
        }
        law = torch.distributions.MultivariateNormal(raw["mu_log"], raw["cov_log"])
        return cls(raw["mu"], raw["sigma"], law)

    def returns(self, trials: int, seed: int) -> Tensor:
        """Gross returns ``[trials, months, funds]``, drawn one month after the other.

        Drawing them singly makes the numbers those of the authors' loop over trials and months.
        """
        torch.manual_seed(seed)
        months = [self.law.sample() for _ in range(trials * MONTHS)]
        return torch.stack(months).exp().view(trials, MONTHS, -1)


class Policy(nn.Module):
    """The policy with its parameters; ``backward`` is how its QPs are differentiated."""

    def __init__(self, market: Market, backward: str | torchqp.backward.Backward) -> None:
        """Starts from the market's own mean and covariance."""
        super().__init__()
        values, vectors = torch.linalg.eigh(market.covariance)
        root = vectors @ torch.diag(values.sqrt()) @ vectors.T
        self.mean = nn.Parameter(market.mean.clone())
        self.root = nn.Parameter(root)
        self.gamma_root = nn.Parameter(torch.tensor(GAMMA**0.5, dtype=torch.float64))
        self.layer = torchqp.QPLayer(backward=backward)
        for name, value in _constraints(len(market.mean)).items():
            self.register_buffer(name, value)

    def objective(self) -> tuple[Tensor, Tensor]:
        """Q and q of the QP in (h+, |h+ - h|, (h+)_-)."""
        funds = len(self.mean)
        scaled = self.gamma_root * self.root
        risk = nn.functional.pad(2.0 * scaled.T @ scaled, (0, 2 * funds, 0, 2 * funds))
        return risk, nn.functional.pad(-self.mean, (0, 2 * funds))

    def forward(self, holdings: Tensor) -> Tensor:
        """Holdings after trading, ``[trials, funds]``, for any wealth."""
        wealth = holdings.sum(-1, keepdim=True)
        h = holdings / wealth
        ones, zeros = torch.ones_like(h[:, :1]), torch.zeros_like(h)
        risk, reward = self.objective()
        z = self.layer(
            risk, reward, self.rows, torch.cat([ones, h, -h, zeros], dim=-1), lb=self.lower
        )
        return wealth * z[:, : h.shape[-1]]

    @torch.no_grad()
    def descend(self, rate: float) -> None:
        """A gradient step, with sqrt(gamma) kept non-negative."""
        for parameter in self.parameters():
            parameter -= rate * parameter.grad
        self.gamma_root.clamp_(min=0.0)

    @torch.no_grad()
    def start(self) -> Tensor:
        """The best holdings if trading cost nothing: where every simulation starts."""
        funds = len(self.mean)
        risk, reward = self.objective()
        keep = [*range(funds), *range(2 * funds, 3 * funds)]
        reward = reward[keep] + torch.cat([torch.zeros(funds), torch.full((funds,), COST)])
        eye = torch.eye(funds, dtype=torch.float64)
        budget = torch.cat([torch.ones(1, funds), torch.zeros(1, funds)], dim=-1).double()
        short = torch.cat([-eye, -eye], dim=-1)
        lower = self.lower[keep]
        solution = torchqp.solve_qp(risk[keep][:, keep], reward, short, 0.0, budget, 1.0, lb=lower)
        return solution.raise_for_status().z[:funds]


def _constraints(funds: int) -> dict[str, Tensor]:
    """The rows of G and the lower bounds of the policy's QP."""
    eye, zero = torch.eye(funds, dtype=torch.float64), torch.zeros(funds, funds).double()
    ones = torch.ones(1, funds, dtype=torch.float64)
    rows = [
        torch.cat([ones, COST * ones, COST * ones], dim=-1),
        torch.cat([eye, -eye, zero], dim=-1),
        torch.cat([-eye, -eye, zero], dim=-1),
        torch.cat([-eye, zero, -eye], dim=-1),
    ]
    free = torch.full((2 * funds,), -torch.inf, dtype=torch.float64)
    return {"rows": torch.cat(rows), "lower": torch.cat([free, torch.zeros(funds).double()])}


def utility(policy: Policy, returns: Tensor, start: Tensor) -> Tensor:
    """Mean utility of a month's growth over all months and trials."""
    holdings = start.expand(len(returns), -1)
    total = 0.0
    for month in returns.unbind(1):
        after = month * policy(holdings)
        growth = after.sum(-1) / holdings.sum(-1) - 1.0
        total = total + torch.minimum(LOSS_SLOPE * growth, GAIN_SLOPE * growth).mean()
        holdings = after
    return total / returns.shape[1]
