"""Trains the Sudoku layer in every process that torchrun starts; run.py starts it.

    torchrun --nproc-per-node 2 experiments/ddp/train.py --out gradients.npz

Each process takes its share of every batch; DistributedDataParallel averages the gradients. The
first process writes the first step's gradients, the last parameters and the steps' times.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # so that the file runs as a script

from experiments.common.steps import minibatches, take_step
from experiments.sudoku.boards import load
from experiments.sudoku.layer import SudokuLayer


def train(side: int, batch: int, steps: int, seed: int) -> dict[str, np.ndarray]:
    """Trains this process's share; every process returns the same but for the times."""
    rank, processes = dist.get_rank(), dist.get_world_size()
    boards = load(side)
    torch.manual_seed(seed)
    model = DistributedDataParallel(SudokuLayer(side, "QP"))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1, fused=True)
    generator = torch.Generator().manual_seed(seed)
    result: dict[str, np.ndarray] = {}
    seconds = []
    for indices in list(minibatches(boards.train, batch, generator))[:steps]:
        mine = indices[rank::processes]

        def loss(mine: Tensor = mine) -> Tensor:
            return (model(boards.puzzle[mine]) - boards.solution[mine]).square().mean()

        dist.barrier()
        start = time.perf_counter()
        take_step(optimizer, loss)
        dist.barrier()
        seconds.append(time.perf_counter() - start)
        if not result:
            result = {f"gradient_{n}": p.grad.numpy() for n, p in _named(model)}
            result = {name: gradient.copy() for name, gradient in result.items()}
    result |= {f"parameter_{n}": p.detach().numpy() for n, p in _named(model)}
    return result | {"seconds": np.array(seconds)}


def _named(model: DistributedDataParallel) -> list[tuple[str, torch.nn.Parameter]]:
    return list(model.module.named_parameters())


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--side", type=int, default=4, choices=(4, 9))
    options.add_argument("--batch", type=int, default=150, help="boards a step, of all processes")
    options.add_argument("--steps", type=int, default=3)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--out", type=Path, required=True, help=".npz of the first process")
    arguments = options.parse_args()
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    try:
        result = train(arguments.side, arguments.batch, arguments.steps, arguments.seed)
        if dist.get_rank() == 0:
            np.savez(arguments.out, **result)
    finally:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
