"""Counting multiply-adds while a network is traced."""

import contextvars
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax

AUXILIARY_HEAD = "auxiliary_head"  # name of the subtree that is counted apart

_total: contextvars.ContextVar[list[int] | None] = contextvars.ContextVar(
    "macs", default=None
)


def count_macs(fn: Callable[..., Any], *args: Any) -> int:
    """Multiply-adds of one image in the convolutions and dense layers of ``fn(*args)``.

    The function is traced by shape, not run.  Layers below a module named
    "auxiliary_head", and calls that initialise parameters, are left out.

    Args:
      fn: a function that applies modules.
      *args: arrays or `jax.ShapeDtypeStruct`.

    Returns:
      an exact count.
    """
    total = [0]
    token = _total.set(total)
    try:
        jax.eval_shape(lambda *args: fn(*args), *args)  # a new function: not cached
    finally:
        _total.reset(token)
    return total[0]


def report_macs(module: nn.Module, macs: int) -> None:
    """Adds the multiply-adds of one image in ``module`` to the count in progress."""
    total = _total.get()
    if total is None or module.is_initializing() or AUXILIARY_HEAD in module.path:
        return
    total[0] += macs
