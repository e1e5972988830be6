"""Distinct architectures, for the candidates of the final choice."""

import jax
import jax.numpy as jnp


def distinct(rows: jax.Array, n: int) -> jax.Array:
    """The first n distinct rows in order; they repeat where there are fewer.

    Args:
      rows: int32[m, T].
      n: of rows wanted.

    Returns:
      int32[n, T].
    """

    def insert(carry, row):
        table, count = carry
        known = jnp.all(table == row[None], axis=1) & (jnp.arange(n) < count)
        is_new = ~known.any() & (count < n)
        slot = jnp.minimum(count, n - 1)
        table = table.at[slot].set(jnp.where(is_new, row, table[slot]))
        return (table, count + is_new), None

    start = (jnp.zeros((n, rows.shape[1]), rows.dtype), jnp.int32(0))
    (table, count), _ = jax.lax.scan(insert, start, rows)
    return table[jnp.arange(n) % count]
