"""Choosing among arrays: earlier nodes, or weights that depend on the chosen input.

The three bindings are those of `child_models.choice`; what is chosen is gathered, not
the result of a conditional.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from child_models.choice import Choice, Weighted, is_fixed


def pick(choice: Choice, arrays: Sequence[jax.Array] | jax.Array) -> jax.Array:
    """Chooses among arrays: earlier nodes, or weights stacked ``[n, ...]``.

    Args:
      choice: int, int32[], or `Weighted` over the n arrays.
      arrays: n arrays; of equal shape unless the choice is fixed.

    Returns:
      The chosen array (gathered, not a conditional), or the weighted sum of the live.
    """
    if is_fixed(choice):
        return arrays[choice]
    stacked = arrays if isinstance(arrays, jax.Array) else jnp.stack(arrays)
    if isinstance(choice, Weighted):
        weight = choice.share.astype(stacked.dtype)
        return jnp.tensordot(weight, stacked, axes=1)
    return jax.lax.dynamic_index_in_dim(stacked, choice, keepdims=False)


def read(choice: Choice, stacked: jax.Array) -> tuple[jax.Array, jax.Array]:
    """`pick`, for a loop that carries the arrays.

    Args:
      choice: int, int32[], or `Weighted` over the n arrays.
      stacked: ``[n, ...]``.

    Returns:
      ``(picked, stacked)``.  Whoever goes on with this ``stacked`` has gradients that
      are added up in place; those of `pick` are each as large as all n arrays.
    """
    if isinstance(choice, Weighted):
        return pick(choice, stacked), stacked
    return _read(jnp.asarray(choice), stacked)


@jax.custom_vjp
def _read(index, stacked):
    return pick(index, stacked), stacked


def _read_fwd(index, stacked):
    return _read(index, stacked), index


def _read_bwd(index, cotangents):
    picked, stacked = cotangents
    return None, add_at(stacked, index, picked)


_read.defvjp(_read_fwd, _read_bwd)


@jax.custom_vjp
def add_at(stacked: jax.Array, index: jax.Array, x: jax.Array) -> jax.Array:
    """Adds x to one of the arrays ``stacked[n, ...]``."""
    total = jax.lax.dynamic_index_in_dim(stacked, index, keepdims=False) + x
    return jax.lax.dynamic_update_index_in_dim(stacked, total, index, 0)


def _add_at_fwd(stacked, index, x):
    return add_at(stacked, index, x), index


def _add_at_bwd(index, cotangent):
    return cotangent, None, pick(index, cotangent)


add_at.defvjp(_add_at_fwd, _add_at_bwd)


def indicator(choice: Choice, n: int) -> jax.Array:
    """float32[n]: one at the choice; its weights where it is relaxed."""
    if isinstance(choice, Weighted):
        return choice.share.astype(jnp.float32)
    return jax.nn.one_hot(choice, n)
