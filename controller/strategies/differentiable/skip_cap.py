"""P-DARTS's derivation: no edge of "none", and at most so many skips.

Chen et al. 2019, https://arxiv.org/abs/1904.12760, section 3.3.2; as in the authors'
code, chenxin061/pdarts, the weakest skip, of equal ones the first, is forbidden, and
all is derived again.
"""

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from controller.spec import DecisionSpec
from controller.strategies.differentiable.named import (
    ABSENT,
    SKIPS,
    ByGroup,
    named_choices,
)

_FORBIDDEN, _DEAD = -1.0, -2.0  # below all weights; what was dropped is last


def capped_derivation(
    spec: DecisionSpec,
    weights: ByGroup,
    max_skips: int | None,
    group: str | None = None,
) -> jax.Array:
    """Derives int32[T] without "none", and with at most so many skips.

    Args:
      spec: of the space.
      weights: like the spec, 0 where an op was dropped.
      max_skips: of the group; None for any number.
      group: None for all.
    """
    absent = named_choices(spec, ABSENT)
    allowed = jax.tree.map(
        lambda w, a: jnp.where(w > 0, jnp.where(a, _FORBIDDEN, w), _DEAD),
        weights,
        absent,
    )
    if max_skips is None:
        return spec.derive(allowed)
    skips = named_choices(spec, SKIPS)
    if group is not None:
        skips = {g: is_skip & (g == group) for g, is_skip in skips.items()}
    is_skip, _ = ravel_pytree(skips)
    start, rejoin = ravel_pytree(allowed)

    def forbid_weakest(_, weights):
        chosen, _ = ravel_pytree(spec.one_hot(spec.derive(rejoin(weights))))
        taken = (chosen > 0) & is_skip
        weakest = jnp.argmin(jnp.where(taken, weights, jnp.inf))
        forbidden = weights.at[weakest].set(_FORBIDDEN)
        return jnp.where(jnp.sum(taken) > max_skips, forbidden, weights)

    return spec.derive(rejoin(jax.lax.fori_loop(0, spec.length, forbid_weakest, start)))
