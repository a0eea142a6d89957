"""The commands of tests/ as modules: most have no suffix."""

import importlib.machinery
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

TESTS = Path(__file__).resolve().parents[1]


def load(file: str) -> ModuleType:
    """The script ``file`` of tests/, without running its main."""
    name = "command_" + Path(file).stem
    loader = importlib.machinery.SourceFileLoader(name, str(TESTS / file))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(name, loader))
    sys.modules[name] = module  # dataclasses look there
    loader.exec_module(module)
    return module
