"""Shortest paths on a grid, as PyEPO's model and as a torchqp layer.

Arcs lead east or south, so that a path from the north-west to the south-east corner is found by
going through the nodes once. As a program: min c'w over the flows A w = b, 0 <= w <= 1.
"""

import numpy as np
import torch
from pyepo.model.bases import shortestPathBase
from pyepo.model.opt import optModel
from torch import Tensor

import torchqp


class GridModel(shortestPathBase, optModel):
    """PyEPO's shortest path, solved by dynamic programming instead of a commercial solver."""

    def _getModel(self) -> tuple:
        nodes = self.grid[0] * self.grid[1]
        self._into = [[] for _ in range(nodes)]
        for arc, (tail, head) in enumerate(self.arcs):
            self._into[head].append((tail, arc))
        return None, range(len(self.arcs))

    def setObj(self, c) -> None:
        """Takes the costs of the arcs; they may be negative."""
        self._cost = np.asarray(c, dtype=np.float64).tolist()

    def solve(self) -> tuple[np.ndarray, float]:
        """The shortest path's arcs as zeros and ones, and its length."""
        distance, last = [0.0], [(0, 0)]
        for arrivals in self._into[1:]:  # a node's number is larger than its predecessors'
            length, tail, arc = min((distance[t] + self._cost[a], t, a) for t, a in arrivals)
            distance.append(length)
            last.append((tail, arc))
        path = np.zeros(len(self.arcs))
        node = len(distance) - 1
        while node:
            node, arc = last[node]
            path[arc] = 1.0
        return path, distance[-1]


class FlowLayer(torch.nn.Module):
    """argmin c'w + gamma/2 ||w||^2 over the flows, for predicted costs c."""

    def __init__(self, model: GridModel, gamma: float, backward: torchqp.backward.Backward) -> None:
        """Takes the grid from ``model``; ``gamma`` 0 leaves a linear program."""
        super().__init__()
        nodes, arcs = model.grid[0] * model.grid[1], len(model.arcs)
        balance = torch.zeros(nodes, arcs, dtype=torch.float64)
        for arc, (tail, head) in enumerate(model.arcs):
            balance[tail, arc], balance[head, arc] = -1.0, 1.0
        supply = torch.zeros(nodes, dtype=torch.float64)
        supply[0], supply[-1] = -1.0, 1.0
        # The rows sum to zero: one of them says nothing.
        self.register_buffer("A", balance[:-1])
        self.register_buffer("b", supply[:-1])
        self.register_buffer("diagonal", torch.full((arcs,), gamma, dtype=torch.float64))
        self.layer = torchqp.QPLayer(backward=backward)

    def forward(self, costs: Tensor) -> Tensor:
        """The flows ``[batch, arcs]``."""
        hessian = torchqp.Diag(self.diagonal)
        return self.layer(hessian, costs.double(), A=self.A, b=self.b, lb=0.0, ub=1.0)
