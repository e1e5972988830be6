"""Which intermediate values the gradient of a conditional's branch keeps.

All others, cheap element-wise ones, are computed again from these.
"""

import jax
from jax.ad_checkpoint import checkpoint_name

_NAME = "kept"
KEPT = jax.checkpoint_policies.save_only_these_names(_NAME)
NOTHING = jax.checkpoint_policies.nothing_saveable


def keep(x: jax.Array) -> jax.Array:
    """Marks a value that costs more to compute again than to keep."""
    return checkpoint_name(x, _NAME)
