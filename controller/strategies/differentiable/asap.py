"""ASAP: the softmax is annealed, and ops of little weight are pruned on the way.

Noy et al. 2019, https://arxiv.org/abs/1904.04123.  In round t the temperature is
T_t = T_0 decay^t.  While it is above the grace temperature, the logits stay; then, at
the end of each round, an op goes whose weight is below threshold / (ops left on its
edge), so that no op is dropped at once in the end.  In DARTS's space "none" is no op of
the search: a rule says which edges are absent, and an edge must not end as one.  The
numbers are those of a third
party's implementation, cogsys-tuebingen/uninas.
"""

import jax
import jax.numpy as jnp

from controller.spec import DecisionSpec
from controller.strategies.differentiable.core import (
    Adam,
    Relaxation,
    differentiable,
    held,
    normal_logits,
    softmax_of_live,
)
from controller.strategies.differentiable.named import (
    ByGroup,
    choice_of_absence,
    own_choices,
)
from controller.types import Strategy


def asap(
    spec: DecisionSpec,
    *,
    temperature: float = 1.6,
    decay: float = 0.95,
    grace_temperature: float = 1.0,
    threshold: float = 0.4,
    steps_per_round: int = 1,
    learning_rate: float = 3e-4,
    weight_decay: float = 1e-3,
    adam_b1: float = 0.5,
    adam_b2: float = 0.999,
    init_scale: float = 1e-3,
) -> Strategy:
    """Builds the strategy.

    Args:
      spec: of the space.
      temperature: T_0.
      decay: factor of the temperature a round.
      grace_temperature: above it nothing is learnt or pruned.
      threshold: below 1, so that the heaviest op of an edge always stays.
      steps_per_round: updates of a round.
      learning_rate: of Adam.
      weight_decay: L2 coefficient of the logits.
      adam_b1, adam_b2: decays of Adam's moments.
      init_scale: standard deviation of the first logits.

    Returns:
      a Strategy.

    Raises:
      ValueError: on a number out of its range.
    """
    for name, value in (
        ("temperature", temperature),
        ("grace_temperature", grace_temperature),
    ):
        if not value > 0:
            raise ValueError(f"{name} is {value}; it must be positive")
    if not 0 < decay <= 1:
        raise ValueError(f"decay is {decay}; it must lie in (0, 1]")
    if not 0 <= threshold < 1:
        raise ValueError(
            f"threshold is {threshold}; it must be in [0, 1), so that an op is left"
        )

    live = own_choices(spec)
    if (absent := choice_of_absence(spec)) is not None:
        live = jax.tree.map(lambda rows: rows.at[:, absent].set(False), live)

    def temperature_at(step):
        return temperature * decay ** (step // steps_per_round)

    def weights(logits, live, step):
        return softmax_of_live(logits, live, temperature_at(step))

    def settle(key, old, new, proposal):
        grace = temperature_at(old.step) > grace_temperature
        new = held(grace, old, new)
        ends = new.step % steps_per_round == 0
        kept = heavy(weights(new.params, new.live, old.step), new.live, threshold)
        live = jax.tree.map(
            lambda old, kept: jnp.where(ends & ~grace, kept, old), new.live, kept
        )
        return new.replace(live=live)

    return differentiable(
        spec,
        Relaxation(normal_logits(spec, init_scale), weights, settle=settle, live=live),
        Adam(learning_rate, weight_decay, adam_b1, adam_b2),
    )


def heavy(weights: ByGroup, live: ByGroup, threshold: float) -> ByGroup:
    """The live ops whose weight is at least threshold / (live ops of the row)."""

    def rows(weights, live):
        return live & (weights * jnp.sum(live, axis=-1, keepdims=True) >= threshold)

    return jax.tree.map(rows, weights, live)
