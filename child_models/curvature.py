"""How sharply the validation loss bends in the architecture's logits.

Zela et al. 2020, https://arxiv.org/abs/1909.09656: where the dominant eigenvalue of
this Hessian grows during a search, the derived network generalises badly.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax


def dominant_eigenvalue(
    key: jax.Array, loss: Callable[[Any], jax.Array], point: Any, iterations: int
) -> jax.Array:
    """The eigenvalue of largest magnitude of a loss's Hessian, with its sign.

    By power iteration on products with the Hessian, from a random direction.  The error
    falls as ``|second eigenvalue / first|^(2 iterations)``; of two that differ in sign
    alone, it is something between them.

    Args:
      key: consumed, for the first direction.
      loss: ``(point) -> float[]``, twice differentiable.
      point: pytree of float arrays.
      iterations: products with the Hessian, 1 or more, before the one that is measured.

    Returns:
      float[], the Rayleigh quotient of the last direction.
    """
    leaves, treedef = jax.tree.flatten(point)
    keys = jax.tree.unflatten(treedef, list(jax.random.split(key, len(leaves))))
    start = jax.tree.map(
        lambda x, k: jax.random.normal(k, x.shape, x.dtype), point, keys
    )

    # Backwards twice, as ops with a VJP of their own need it; linearised once.
    _, product = jax.vjp(jax.grad(loss), point)

    def unit(direction):
        norm = optax.tree.norm(direction)
        return jax.tree.map(lambda x: x / jnp.where(norm > 0, norm, 1), direction)

    last = jax.lax.fori_loop(
        0, iterations, lambda _, v: unit(product(v)[0]), unit(start)
    )
    return optax.tree.vdot(last, product(last)[0])


def shifted(weights: Any, shift: Any) -> Any:
    """Weights after the logits behind them were shifted; rows keep their sums.

    Of ``w = s softmax(a)`` it is ``s softmax(a + shift)``, so that derivatives with
    respect to the shift at 0 are those with respect to the logits; of logits over a
    temperature, to what the softmax sees.  A weight of 0 stays 0.

    Args:
      weights: pytree of float[rows, choices].
      shift: like the weights.
    """

    def rows(weights, shift):
        moved = weights * jnp.exp(shift)
        before, after = (x.sum(axis=-1, keepdims=True) for x in (weights, moved))
        return moved * before / jnp.where(after > 0, after, 1)

    return jax.tree.map(rows, weights, shift)
