"""The four denoisers: a network, total variation, and two QP layers with learned data.

Total variation is min 1/2 ||y - x||^2 + lam ||D y||_1 with the differences D; as a QP it has the
variables z = (y, t), the objective 1/2 y'y - x'y + lam 1't and the rows -t <= D y <= t.
"""

import torch
from torch import Tensor, nn

import torchqp

EPS = 1e-4  # added to the whole diagonal of Q, as OptNet does


def differences(length: int) -> Tensor:
    """D of shape ``[length - 1, length]``: row i is y_i - y_(i+1)."""
    eye = torch.eye(length, dtype=torch.float64)
    return eye[:-1] - eye[1:]


def hessian(length: int) -> Tensor:
    """The diagonal of Q: ones for y and next to nothing for t."""
    ones = torch.ones(length, dtype=torch.float64)
    return torch.cat([ones, torch.full_like(ones[1:], 1e-8)]) + EPS


def rows(D: Tensor) -> Tensor:
    """G of -t <= D y <= t."""
    eye = torch.eye(len(D), dtype=D.dtype)
    return torch.cat([torch.cat([D, -eye], 1), torch.cat([-D, -eye], 1)])


class TotalVariation(nn.Module):
    """Total variation with a fixed lam, by its dual: min 1/2 ||x - D'u||^2, -lam <= u <= lam."""

    def __init__(self, length: int, lam: float) -> None:
        """See the class."""
        super().__init__()
        self.lam = lam
        self.register_buffer("D", differences(length))

    def forward(self, noisy: Tensor) -> Tensor:
        D = self.D
        dual = torchqp.QPLayer()(D @ D.T, -noisy @ D.T, lb=-self.lam, ub=self.lam)
        return noisy - dual @ D


class PureOptNet(nn.Module):
    """Total variation whose D is learned from noise; lam stays."""

    def __init__(self, length: int, lam: float) -> None:
        """See the class."""
        super().__init__()
        self.lam = lam
        self.D = nn.Parameter(0.3 * torch.randn(length - 1, length, dtype=torch.float64))
        self.register_buffer("hessian", hessian(length))

    def forward(self, noisy: Tensor) -> Tensor:
        lam = noisy.new_full((len(noisy), len(self.D)), self.lam)
        q = torch.cat([-noisy, lam], dim=-1)
        z = torchqp.QPLayer()(torchqp.Diag(self.hessian), q, rows(self.D), 0.0)
        return z[:, : noisy.shape[-1]]


class TunedOptNet(nn.Module):
    """An OptNet layer behind a linear one, both initialised to total variation and both learned."""

    def __init__(self, length: int, lam: float) -> None:
        """See the class."""
        super().__init__()
        n, m = 2 * length - 1, 2 * (length - 1)
        self.linear = nn.Linear(length, n, dtype=torch.float64)
        self.layer = torchqp.OptNet(n, m, eps=EPS, dtype=torch.float64)
        with torch.no_grad():
            start = torch.cat([-torch.eye(length), torch.zeros(length - 1, length)])
            self.linear.weight.copy_(start + 1e-3 * torch.randn(n, length))
            self.linear.bias.zero_()[length:] = lam
            self.layer.L.copy_(torch.diag((hessian(length) - EPS).sqrt()))
            self.layer.G.copy_(rows(differences(length)))
            self.layer.z0.zero_()[length:] = 1.0  # with s0 = 1 this makes h = G z0 + s0 zero
            self.layer.s0.fill_(1.0)

    def forward(self, noisy: Tensor) -> Tensor:
        return self.layer(self.linear(noisy))[:, : noisy.shape[-1]]


class FullyConnected(nn.Module):
    """Linear, ReLU, linear; in float32, as networks usually are.

    Batch norm between them, which the authors' code has as an option, makes it worse here.
    """

    def __init__(self, length: int, hidden: int) -> None:
        """See the class."""
        super().__init__()
        self.net = nn.Sequential(nn.Linear(length, hidden), nn.ReLU(), nn.Linear(hidden, length))

    def forward(self, noisy: Tensor) -> Tensor:
        return self.net(noisy.float())
