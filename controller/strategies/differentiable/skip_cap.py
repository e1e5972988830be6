"""P-DARTS's derivation: no edge of "none", and at most so many skips.

Chen et al. 2019, https://arxiv.org/abs/1904.12760, section 3.3.2; as in the authors'
code, chenxin061/pdarts, the weakest skip is forbidden, and all is derived again.
"""

import jax
import jax.numpy as jnp

from controller.spec import DecisionSpec
from controller.strategies.differentiable.named import (
    ABSENT,
    SKIPS,
    ByGroup,
    named_choices,
)


def capped_derivation(
    spec: DecisionSpec,
    weights: ByGroup,
    max_skips: int | None,
    group: str | None = None,
) -> jax.Array:
    """Derives int32[T] without "none", and with at most so many skips.

    Args:
      spec: of the space.
      weights: like the spec.
      max_skips: of the group; None for any number.
      group: None for all.
    """
    absent = named_choices(spec, ABSENT)
    allowed = jax.tree.map(lambda w, a: jnp.where(a, -1.0, w), weights, absent)
    if max_skips is None:
        return spec.derive(allowed)
    skips = named_choices(spec, SKIPS)
    if group is not None:
        skips = {g: is_skip & (g == group) for g, is_skip in skips.items()}

    def forbid_weakest(_, weights):
        chosen = spec.one_hot(spec.derive(weights))
        taken = jax.tree.map(lambda c, is_skip: (c > 0) & is_skip, chosen, skips)
        count = sum(jnp.sum(rows) for rows in taken.values())
        strengths = jax.tree.map(lambda w, t: jnp.where(t, w, jnp.inf), weights, taken)
        least = jnp.min(jnp.stack([jnp.min(rows) for rows in strengths.values()]))
        return jax.tree.map(
            lambda w, t: jnp.where(t & (w == least) & (count > max_skips), -1.0, w),
            weights,
            taken,
        )

    return spec.derive(jax.lax.fori_loop(0, spec.length, forbid_weakest, allowed))
