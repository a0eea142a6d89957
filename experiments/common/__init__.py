"""What the experiments share: data loading, training, metrics, records and plots."""

from experiments.common.metrics import range_regret, relative_regret
from experiments.common.record import environment, load_npz, write_json
from experiments.common.training import History, Protocol, fit, mlp, split_indices

__all__ = [
    "History",
    "Protocol",
    "environment",
    "fit",
    "load_npz",
    "mlp",
    "range_regret",
    "relative_regret",
    "split_indices",
    "write_json",
]
