"""Do LPGD's gradients tune a Markowitz trading policy in fewer steps than exact ones (COCP, LPGD)?

    python experiments/markowitz_policy/run.py           # 400 steps, six ways to differentiate
    python experiments/markowitz_policy/run.py --peer    # and through cvxpylayers: a quarter hour
    python experiments/markowitz_policy/run.py --full    # every side, tau and rho

The protocol is that of Agrawal et al., "Learning convex optimization control policies" (2020), with
the authors' own random numbers. Writes results.json and utility.png; report.md discusses them.
"""

import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import torch

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))  # so that the file also runs as a script

import torchqp  # noqa: E402
from experiments.common import plots  # noqa: E402
from experiments.common.command import parse, parser, publish  # noqa: E402
from experiments.common.sweep import sweep  # noqa: E402
from experiments.markowitz_policy.peer import SCS, CvxpyPolicy, gradient_check  # noqa: E402
from experiments.markowitz_policy.policy import Market, Policy, utility  # noqa: E402

LR, HALVED_EVERY = 1e-3, 100
TRIALS, TEST_SEED = 10, 7329  # the authors'
MANY_TRIALS, MANY_SEED = 1000, 1  # a second test set, for what ten trials cannot tell
WINDOW = 20
REACHED = 0.0053  # the level that the authors' curve ends at, less a rounding


class Mode(NamedTuple):
    """How the policy's QPs are differentiated.

    ``side`` "exact" is gradient descent with torchqp, "cvxpylayers" with the authors' layer.
    """

    side: str
    tau: float = 0.0
    rho: float = 0.0

    def policy(self, market: Market) -> Policy:
        """The untuned policy; tau is relative."""
        if self.side == "cvxpylayers":
            return CvxpyPolicy(market, SCS)
        if self.side == "exact":
            return Policy(market, torchqp.KKT())
        return Policy(market, torchqp.LPGD(tau=self.tau, side=self.side, rho=self.rho))

    def label(self) -> str:
        """Its name in tables and legends."""
        if self.side == "exact":
            return "GD (exact)"
        if self.side == "cvxpylayers":
            return "GD (cvxpylayers, SCS)"
        rho = f", rho {self.rho:g}" if self.rho else ""
        return f"LPGD {self.side}, tau {self.tau:g}{rho}"


GD, PEER = Mode("exact"), Mode("cvxpylayers")


@dataclass(frozen=True)
class Settings:
    """What is run."""

    steps: int
    test_every: int
    modes: tuple[Mode, ...]


DEFAULT = Settings(
    steps=400,
    test_every=5,
    modes=(
        GD,
        *(Mode("average", tau) for tau in (0.01, 0.03, 0.1, 0.3)),
        Mode("average", 0.1, 0.01),
    ),
)
FULL = Settings(
    steps=400,
    test_every=1,
    modes=(
        GD,
        *(
            Mode(side, tau, rho)
            for side in ("average", "lower", "upper")
            for tau in (0.001, 0.01, 0.03, 0.1, 0.3)
            for rho in (0.0, 0.01, 0.1)
        ),
    ),
)


class Run(NamedTuple):
    """One tuning of the policy."""

    mode: Mode
    steps: int
    test_every: int
    many_trials: int = MANY_TRIALS


def execute(run: Run) -> dict:
    """Tunes the policy; the record has the test utility before and after."""
    market = Market.load()
    policy = run.mode.policy(market)
    judged = Policy(market, torchqp.KKT())  # has the tuned parameters, and solves exactly
    test = market.returns(TRIALS, TEST_SEED)
    many = market.returns(run.many_trials, MANY_SEED)
    record: dict = {"many_before": _utility(judged, many), "gradient_norm": []}
    curve, seconds, rate = {}, 0.0, LR
    for step in range(run.steps):
        if step % run.test_every == 0:
            curve[step] = _utility(judged, test)
        start = time.perf_counter()
        if (step + 1) % HALVED_EVERY == 0:
            rate /= 2.0
        policy.zero_grad()
        utility(policy, market.returns(TRIALS, seed=step), policy.start()).neg().backward()
        gradients = [parameter.grad for parameter in policy.parameters()]
        policy.descend(rate)
        judged.load_state_dict(policy.state_dict())
        seconds += time.perf_counter() - start
        record["gradient_norm"].append(float(torch.cat([g.flatten() for g in gradients]).norm()))
    curve[run.steps] = _utility(judged, test)
    return record | {
        "many_after": _utility(judged, many),
        "step": list(curve),
        "test_utility": list(curve.values()),
        "gamma": float(policy.gamma_root.detach() ** 2),
        "seconds": seconds,
    }


@torch.no_grad()
def _utility(policy: Policy, returns: torch.Tensor) -> float:
    return float(utility(policy, returns, policy.start()))


def table(record: dict) -> str:
    """One row per mode; the level that counts as reached is also GD's own last one."""
    end = record["runs"][0]["test_utility"][-1]
    lines = [
        f"| gradients | test utility at 0 | at 20 | at the end | steps to GD's end, {end:.5f} "
        f"| to {REACHED:g} | {MANY_TRIALS} other trials: before | after | seconds |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for run in record["runs"]:
        curve = dict(zip(run["step"], run["test_utility"], strict=True))
        first, last = run["test_utility"][0], run["test_utility"][-1]
        early = f"{curve[20]:.5f}" if 20 in curve else ""
        lines.append(
            f"| {Mode(*run['mode']).label()} | {first:.5f} | {early} | {last:.5f} "
            f"| {_first(curve, end)} | {_first(curve, REACHED)} "
            f"| {run['many_before']:.5f} | {run['many_after']:.5f} | {run['seconds']:.0f} |"
        )
    return "\n".join(lines) + "\n"


def _first(curve: dict[int, float], level: float) -> int | str:
    """The first step at which the curve is at the level."""
    return next((step for step, value in curve.items() if value >= level), "never")


def check_table(record: dict) -> str:
    """The directional derivatives of :func:`gradient_check`."""
    names = list(record["gradient_check"][0])
    lines = [f"| month | {' | '.join(names)} |", "| --- |" + " --- |" * len(names)]
    for month, row in enumerate(record["gradient_check"]):
        lines.append(f"| {month} | " + " | ".join(f"{row[name]:.4g}" for name in names) + " |")
    return "\n".join(lines) + "\n"


def draw(record: dict, path: Path) -> None:
    """Test utility by step, and the gradient's norm averaged over ``WINDOW`` steps."""
    figure, (axes,) = plots.panels(1, 2, 4.6, 3.4)
    for run in record["runs"]:
        mode = Mode(*run["mode"])
        look = {"color": "black", "linewidth": 1.8} if mode == GD else {"linewidth": 1.1}
        axes[0].plot(run["step"], run["test_utility"], label=mode.label(), **look)
        norms = torch.tensor(run["gradient_norm"]).unfold(0, WINDOW, 1).mean(-1)
        axes[1].plot(range(WINDOW, WINDOW + len(norms)), norms, **look)
    axes[0].axhline(REACHED, color="0.6", linestyle=":")
    axes[0].set(xlabel="step", ylabel="test utility (higher is better)", ylim=(0.0041, 0.0056))
    axes[1].set(xlabel="step", ylabel=f"gradient norm, mean of {WINDOW} steps", ylim=(0.0, None))
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center")
    plots.save(figure, path)


def main() -> None:
    options = parser(__doc__, HERE)
    options.add_argument("--peer", action="store_true", help="also tune through cvxpylayers")
    arguments = parse(options)
    settings = FULL if arguments.full else DEFAULT
    modes = (*settings.modes, PEER) if arguments.peer else settings.modes
    runs = [Run(mode, settings.steps, settings.test_every) for mode in modes]
    records = sweep(execute, runs, arguments.out, arguments.workers)
    record = publish(
        arguments.out,
        {
            "experiment": "markowitz_policy",
            "full": arguments.full,
            "settings": asdict(settings) | {"lr": LR, "test_seed": TEST_SEED},
            "gradient_check": gradient_check(),
            "runs": [{"mode": list(run.mode)} | r for run, r in zip(runs, records, strict=True)],
        },
    )
    draw(record, arguments.out / "utility.png")
    print(table(record))
    print(check_table(record))


if __name__ == "__main__":
    main()
