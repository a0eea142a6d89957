"""Finds and loads the operators' shared library, which lies next to this file."""

from __future__ import annotations

from pathlib import Path

import torch


def load() -> None:
    """Loads libtorchqp_ops.so, which defines torch.ops.torchqp.solve and kkt_solve.

    Raises:
        ImportError: the library is not there, or was built against another torch.
    """
    path = Path(__file__).with_name("libtorchqp_ops.so")
    if not path.is_file():
        raise ImportError(
            f"torchqp: expected its operators in {path}, found no such file. Build them with "
            "`pip install --no-build-isolation .` in the source tree; a source checkout alone "
            "cannot be imported."
        )
    try:
        torch.ops.load_library(path)
    except OSError as error:
        raise ImportError(
            f"torchqp: {path} cannot be loaded by torch {torch.__version__}; it was probably built "
            "against another torch. Rebuild it with `pip install --no-build-isolation .`. "
            f"The loader says: {error}"
        ) from error
