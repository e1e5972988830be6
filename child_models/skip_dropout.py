"""How P-DARTS lets go of the dropout after skips.

Chen et al. 2019, https://arxiv.org/abs/1904.12760, section 3.3; the numbers are of the
authors' code, chenxin061/pdarts.
"""

import jax
import jax.numpy as jnp

SCALE = 0.2


def skip_dropout_factor(epoch: jax.Array, epochs: int, rest: int) -> jax.Array:
    """The share of the first rate that is left in an epoch.

    ``(E - e - 1) / E`` while the architecture rests, then ``exp(-0.2 (e - rest))``.

    Args:
      epoch: e, int32[], from 0; that of a later stage counts anew.
      epochs: E, of a stage.
      rest: epochs at its start in which the architecture is not learnt.

    Returns:
      float32[].
    """
    epoch = (epoch % epochs).astype(jnp.float32)
    falling, learning = (epochs - epoch - 1) / epochs, jnp.exp(-SCALE * (epoch - rest))
    return jnp.where(epoch < rest, falling, learning)
