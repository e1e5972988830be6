"""Selection by tournament, as pure functions of fitness.

Shapes: P individuals, of which the first `count` are there; S drawn.
"""

import jax
import jax.numpy as jnp


def entrants(
    key: jax.Array, count: jax.Array, capacity: int, size: int, *, replace: bool = True
) -> jax.Array:
    """Indices int32[S] of individuals drawn uniformly.

    Args:
      key: consumed.
      count: int32[], individuals that are there; without replacement, P.
      capacity: P.
      size: S.
      replace: whether one may be drawn twice.
    """
    if replace:
        return jax.random.randint(key, (size,), 0, jnp.maximum(count, 1))
    return jax.random.permutation(key, capacity)[:size].astype(jnp.int32)


def winner(drawn: jax.Array, fitness: jax.Array) -> jax.Array:
    """The fittest of the drawn, int32[]."""
    return drawn[jnp.argmax(fitness[drawn])]


def loser(drawn: jax.Array, fitness: jax.Array) -> jax.Array:
    """The least fit of the drawn, int32[]."""
    return drawn[jnp.argmin(fitness[drawn])]
