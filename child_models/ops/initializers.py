"""Initial weights."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp


def flat_normal(variance: float) -> Callable[..., jax.Array]:
    """Initialiser: normal, truncated at two deviations, of the given variance.

    It draws a vector and reshapes it: XLA takes many times as long to compile a draw of
    four or five axes.
    """

    def init(key, shape, dtype=jnp.float32):
        draw = jax.random.truncated_normal(key, -2.0, 2.0, (math.prod(shape),), dtype)
        return (math.sqrt(variance) / 0.87962566 * draw).reshape(shape)

    return init


def he_normal(fan_in: int) -> Callable[..., jax.Array]:
    """He et al. 2015, eq. 10: variance 2 / fan_in."""
    return flat_normal(2 / fan_in)


def he_kernel(key: jax.Array, shape: tuple[int, ...], dtype=jnp.float32) -> jax.Array:
    """`he_normal` of ``[kh, kw, in, out]``, or depthwise ``[kh, kw, C]``."""
    return he_normal(math.prod(shape[:-1]))(key, shape, dtype)
