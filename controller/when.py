"""A conditional update that does not multiply its constants under `vmap`."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def when(
    predicate: jax.Array, update: Callable[[Any, Any], Any], argument: Any, state: Any
) -> Any:
    """``update(argument, state)`` where the predicate holds, else the state.

    `jax.lax.cond` under `vmap` runs both branches and copies every array that they
    close over once for each row; here these arrays stay single.

    Args:
      predicate: bool[].
      update: of equal structure to the state.
      argument: pytree of arrays.
      state: pytree of arrays, no keys.
    """

    @jax.custom_batching.custom_vmap
    def run(predicate, argument, state):
        return jax.lax.cond(predicate, update, lambda _, state: state, argument, state)

    @run.def_vmap
    def rule(axis_size, in_batched, predicate, argument, state):
        axes = jax.tree.map(lambda batched: 0 if batched else None, in_batched)
        rows = jax.vmap(_select(update), in_axes=tuple(axes), axis_size=axis_size)
        out = rows(predicate, argument, state)
        return out, jax.tree.map(lambda _: True, out)

    return run(predicate, argument, state)


def _select(update):
    def one(predicate, argument, state):
        new = update(argument, state)
        return jax.tree.map(lambda a, b: jnp.where(predicate, a, b), new, state)

    return one
