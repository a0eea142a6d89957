"""Solves and differentiates small problems of every kind on a GPU and compares them with the CPU.

    python tests/gpu_driver.py                                  # all families, both precisions
    python tests/gpu_driver.py --families optnet --sizes 4 40 --batch 3
    python tests/gpu_driver.py --device cpu --sizes 4           # tries this script without a GPU

tests/gpu runs it, and runs it again under each compute-sanitizer tool. The default sizes have
problems for every width of a team of threads (csrc/cuda/launch_plan.cpp), and such that libraries
set up.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator

import torch
from torch import Tensor

import torchqp
from torchqp import testing

SIZES = (4, 12, 20, 28, 40, 100, 150, 170)
WIDE = 64  # above it, and in the families below alone: a problem is then the work of a whole block
WIDE_FAMILIES = ("optnet", "semidefinite", "two_sided")
MODES = ("kkt", "smoothed", "lpgd")
DTYPES = {"float64": torch.float64, "float32": torch.float32}
# By precision: relative difference allowed in outputs and in gradients, and the least distance
# from a kink of a member that is compared: the two devices need not round alike.
OUTPUTS = {torch.float64: 1e-7, torch.float32: 2e-3}
GRADIENTS = {torch.float64: 1e-6, torch.float32: 2e-2}
STRICT = {torch.float64: 1e-5, torch.float32: 1e-2}
# The smoothed mode solves with Q. A singular one is positive definite by its regularisation alone,
# which in single precision is of the size of Q's own rounding: one unit in the last place of q
# moves its gradients by up to five times themselves (n = 12). The outputs are compared.
UNDETERMINED = ("semidefinite", "float32", "smoothed")


def members(value: Tensor, regular: Tensor) -> Tensor:
    """The regular members; all of what has no batch dimension."""
    batched = value.dim() and value.shape[0] == len(regular)
    return value[regular.to(value.device)].cpu() if batched else value.cpu()


def compare(
    problem: testing.Problem, mode: str, device: str, *, gradients: bool = True
) -> tuple[list[str], int, int]:
    """What differs, how many tensors have equal bits, and how many there are."""
    weights = testing.cotangents(torchqp.solve_qp(**problem), names=("z",))
    expected, wanted = testing.pullback(torchqp.solve_qp, problem, weights, backward=mode)
    moved = {k: testing.map_tensor(lambda v: v.to(device), v) for k, v in problem.items()}
    there = {k: v.to(device) for k, v in weights.items()}
    actual, found = testing.pullback(torchqp.solve_qp, moved, there, backward=mode)
    if not torch.equal(actual.status.cpu(), expected.status):
        return [f"status {actual.status.tolist()}, expected {expected.status.tolist()}"], 0, 1

    dtype = expected.z.dtype
    regular = (testing.strictness(problem, expected) >= STRICT[dtype]) & (expected.status == 0)
    pairs: list[tuple[str, Tensor, Tensor, float]] = [
        (name, getattr(actual, name), value, OUTPUTS[dtype])
        for name, value in testing.outputs(expected)
    ]
    if gradients:
        pairs += [(f"grad {k}", found[k], wanted[k], GRADIENTS[dtype]) for k in wanted]
    wrong, same = [], 0
    for name, a, b, tolerance in pairs:
        same += testing.same_bits(a.cpu(), b)
        if regular.any():
            error = testing.relative_error(members(a, regular), members(b, regular))
            if not error <= tolerance:
                wrong.append(f"{name} differs by {error:.1e}, allowed {tolerance:.0e}")
    return wrong, same, len(pairs)


def problems(options: argparse.Namespace) -> Iterator[tuple[str, testing.Problem]]:
    """Name and data of every problem."""
    for family in options.families:
        for n in options.sizes:
            if n <= WIDE or family in WIDE_FAMILIES:
                for name in options.dtypes:
                    made = testing.make(family, n, options.batch, seed=n, dtype=DTYPES[name])
                    yield f"{family}, n={n}, {name}", made


def main(arguments: list[str] | None = None) -> int:
    """1 if anything differs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--families", nargs="+", choices=list(testing.FAMILIES))
    parser.add_argument("--sizes", nargs="+", type=int, default=SIZES)
    parser.add_argument("--modes", nargs="+", choices=MODES, default=MODES)
    parser.add_argument("--dtypes", nargs="+", choices=list(DTYPES), default=list(DTYPES))
    parser.add_argument("--batch", type=int, default=7)
    options = parser.parse_args(arguments)
    options.families = options.families or list(testing.FAMILIES)
    if options.device != "cpu":
        print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
    calls, differ, same, tensors = 0, 0, 0, 0
    for name, problem in problems(options):
        for mode in options.modes:
            words = f"{name}, {mode}".split(", ")
            determined = not all(word in words for word in UNDETERMINED)
            wrong, equal, count = compare(problem, mode, options.device, gradients=determined)
            calls, same, tensors = calls + 1, same + equal, tensors + count
            differ += bool(wrong)
            if wrong:
                print(f"{name}, {mode}: {'; '.join(wrong)}", flush=True)
    print(f"{calls} batches on {options.device}: {differ} differ from the CPU")
    print(f"{same} of {tensors} outputs and gradients have the CPU's bits")
    return int(differ > 0 or calls == 0)


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    # Not sys.exit: torch's backward threads may still want the interpreter's lock when it goes,
    # which ends the process with "terminate called without an active exception".
    os._exit(status)
