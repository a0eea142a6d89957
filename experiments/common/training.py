"""One training loop for every experiment: best-validation weights and a probe of the gradient."""

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor, nn

# What is zero in exact arithmetic leaves a linear solve as rounding error, 1e-12 or less.
ZERO_NORM = 1e-9


@dataclass(frozen=True)
class Protocol:
    """How a network is trained: Adam at ``lr``, ``epochs`` passes over shuffled batches."""

    epochs: int
    batch_size: int
    lr: float


@dataclass
class History:
    """One number per epoch.

    Attributes:
        zero_share: share of training samples whose loss gradient with respect to the network's
            output is zero: an l2 norm of at most ``ZERO_NORM``.
        gradient_norm: mean l2 norm of that gradient over the training samples.
        scores: what ``evaluate`` returned after the epoch, by name.
        best_epoch: the epoch whose weights were kept, counted from 0.
        zero_gap: the largest norm of the whole training that counted as zero, and the smallest
            that did not; far apart, they show that ``ZERO_NORM`` decides nothing.
        seconds: wall time of the training steps alone, evaluation excluded.
    """

    zero_share: list[float] = field(default_factory=list)
    gradient_norm: list[float] = field(default_factory=list)
    scores: dict[str, list[float]] = field(default_factory=dict)
    best_epoch: int = -1
    zero_gap: tuple[float, float] = (0.0, float("inf"))
    seconds: float = 0.0


def mlp(inputs: int, hidden: tuple[int, ...], outputs: int) -> nn.Sequential:
    """A multi-layer perceptron with LeakyReLU between linear layers."""
    sizes = (inputs, *hidden)
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(sizes):
        layers += [nn.Linear(fan_in, fan_out), nn.LeakyReLU()]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], outputs))


def split_indices(
    samples: int, shares: tuple[float, float], generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Draws a random split into training, validation and (the rest) test indices."""
    order = torch.randperm(samples, generator=generator)
    first, second = (round(share * samples) for share in shares)
    return order[:first], order[first : first + second], order[first + second :]


def fit(
    model: nn.Module,
    inputs: Tensor,
    loss: Callable[[Tensor, Tensor], Tensor],
    evaluate: Callable[[nn.Module], dict[str, float]],
    train: Tensor,
    protocol: Protocol,
    generator: torch.Generator,
) -> History:
    """Trains ``model`` in place and leaves it with the weights of its best epoch.

    The network's output is cut from the graph and cast to float64 before ``loss`` sees it: the
    gradient that arrives there is recorded, then sent on into the network in its own dtype.

    Args:
        model: maps ``inputs[indices]`` to the output that ``loss`` takes.
        inputs: every sample's input, first dimension the samples.
        loss: ``loss(output, indices) -> scalar``; a sum over the samples, so that a sample's
            gradient does not depend on the batch it is in.
        evaluate: called after each epoch; its entry ``"validation"`` (smaller is better) decides
            which weights are kept.
        train: indices of the training samples.
        protocol: epochs, batch size and learning rate.
        generator: draws the order of the samples.
    """
    optimizer = torch.optim.Adam(model.parameters(), lr=protocol.lr, fused=True)
    history = History()
    best, best_state = float("inf"), None
    for epoch in range(protocol.epochs):
        start = time.perf_counter()
        norms = []
        order = train[torch.randperm(len(train), generator=generator)]
        for indices in order.split(protocol.batch_size):
            output = model(inputs[indices])
            leaf = output.detach().double().requires_grad_()
            optimizer.zero_grad()
            loss(leaf, indices).backward()
            output.backward(leaf.grad.to(output.dtype))
            optimizer.step()
            norms.append(torch.linalg.vector_norm(leaf.grad, dim=-1))
        history.seconds += time.perf_counter() - start
        _record_gradients(history, torch.cat(norms))
        with torch.no_grad():
            scores = evaluate(model)
        for name, score in scores.items():
            history.scores.setdefault(name, []).append(score)
        if scores["validation"] < best:
            best, history.best_epoch = scores["validation"], epoch
            best_state = copy.deepcopy(model.state_dict())
    if best_state is None:
        raise FloatingPointError("no epoch ended with a finite validation score")
    model.load_state_dict(best_state)
    return history


def _record_gradients(history: History, norms: Tensor) -> None:
    zero = norms <= ZERO_NORM
    history.zero_share.append(float(zero.double().mean()))
    history.gradient_norm.append(float(norms.mean()))
    largest, smallest = history.zero_gap
    history.zero_gap = (
        max([largest, *norms[zero].tolist()]),
        min([smallest, *norms[~zero].tolist()]),
    )
