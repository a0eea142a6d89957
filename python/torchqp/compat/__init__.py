"""Calls of other packages, answered by torchqp."""

from torchqp.compat import qpth

__all__ = ["qpth"]
