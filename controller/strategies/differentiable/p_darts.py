"""P-DARTS: ops are dropped from stage to stage, and skips of the result are capped.

Chen et al. 2019, https://arxiv.org/abs/1904.12760; numbers as in the authors' code,
chenxin061/pdarts.  At the end of a stage each edge drops its weakest ops, and the
logits begin anew; in the first rounds of a stage they rest.  What is derived has no
edge of "none", and at most so many skips: the weakest skip is forbidden, and all is
derived again, until that holds.

All stages run in one network, or each in one of its own (``train.stages``), which is
deeper each time in the paper.  Skip dropout is an argument of the space.
"""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp

from controller.spec import DecisionSpec
from controller.strategies.differentiable.core import (
    Adam,
    Relaxation,
    differentiable,
    held,
    normal_logits,
    softmax_weights,
)
from controller.strategies.differentiable.named import ByGroup, named_live
from controller.strategies.differentiable.skip_cap import capped_derivation
from controller.types import Strategy


def p_darts(
    spec: DecisionSpec,
    *,
    drops: Sequence[int] = (3, 2),
    stage_rounds: int = 25,
    rest_rounds: int = 10,
    max_skips: int | None = 2,
    capped: str | None = None,
    stage: int | None = None,
    kept: Mapping[str, Sequence[str]] | None = None,
    steps_per_round: int = 1,
    learning_rate: float = 6e-4,
    weight_decay: float = 1e-3,
    adam_b1: float = 0.5,
    adam_b2: float = 0.999,
    init_scale: float = 1e-3,
) -> Strategy:
    """Builds the strategy.

    Args:
      spec: of the space.
      drops: ops that an edge drops after each stage but the last.
      stage_rounds: of each stage.
      rest_rounds: at its start, in which the logits stay.
      max_skips: most skips of what is derived; None for any number.
      capped: the group to which that applies, "normal" in the paper; None for all
        together, as of a space of one cell.
      stage: which one, from 0, where each is a search of its own; None for all in one.
      kept: the choices that an earlier stage has left, by decision; None for all.
      steps_per_round: updates of a round.
      learning_rate: of Adam.
      weight_decay: L2 coefficient of the logits.
      adam_b1, adam_b2: decays of Adam's moments.
      init_scale: standard deviation of the first logits of a stage.

    Returns:
      a Strategy.

    Raises:
      ValueError: on a number out of its range, if no op of an edge would be left, or on
        an unknown group.
    """
    live = None if kept is None else named_live(spec, kept)
    if stage is not None and not 0 <= stage <= len(drops):
        raise ValueError(
            f"stage is {stage}; drops={tuple(drops)} makes stages 0 to {len(drops)}"
        )
    drops = drops if stage is None else drops[stage : stage + 1]
    fewest = min(spec.num_choices if kept is None else map(len, kept.values()))
    _check(spec, fewest, drops, stage_rounds, rest_rounds, max_skips, capped)
    init = normal_logits(spec, init_scale)
    stage_steps = stage_rounds * steps_per_round
    dropped_after = jnp.array([*drops, 0], jnp.int32)  # nothing after the last

    def settle(key, old, new, proposal):
        rests = (old.step % stage_steps) < rest_rounds * steps_per_round
        new = held(rests, old, new)
        stage = jnp.minimum(old.step // stage_steps, len(drops))
        ends = (new.step % stage_steps == 0) & (stage < len(drops))
        kept = strongest(new.params, new.live, dropped_after[stage])
        fresh = new.replace(
            params=init(key),
            live=kept,
            opt_state=jax.tree.map(jnp.zeros_like, new.opt_state),
        )
        return jax.tree.map(lambda f, n: jnp.where(ends, f, n), fresh, new)

    def derive(weights):
        return capped_derivation(spec, weights, max_skips, capped)

    return differentiable(
        spec,
        Relaxation(init, softmax_weights, settle=settle, derive=derive, live=live),
        Adam(learning_rate, weight_decay, adam_b1, adam_b2),
    )


def strongest(weights: ByGroup, live: ByGroup, dropped: jax.Array | int) -> ByGroup:
    """The live ops of each row without its `dropped` lightest ones, of equal the last.

    One op of a row always stays.
    """

    def rows(weights, live):
        order = jnp.argsort(jnp.where(live, -weights, jnp.inf), axis=-1)
        rank = jnp.argsort(order, axis=-1)
        count = jnp.sum(live, axis=-1, keepdims=True)
        return live & (rank < jnp.maximum(count - dropped, 1))

    return jax.tree.map(rows, weights, live)


def _check(spec, fewest, drops, stage_rounds, rest_rounds, max_skips, capped):
    if any(drop < 0 for drop in drops) or sum(drops) >= fewest:
        raise ValueError(
            f"drops are {tuple(drops)}, {sum(drops)} in all; they must be 0 or more "
            f"and leave one of the {fewest} choices of a decision"
        )
    if stage_rounds < 1:
        raise ValueError(f"stage_rounds is {stage_rounds}; it must be 1 or more")
    if not 0 <= rest_rounds < stage_rounds:
        raise ValueError(
            f"rest_rounds is {rest_rounds}; it must be 0 to {stage_rounds - 1}"
        )
    if max_skips is not None and max_skips < 0:
        raise ValueError(f"max_skips is {max_skips}; it must be 0 or more, or none")
    if capped is not None and capped not in spec.groups:
        raise ValueError(f"capped is {capped!r}; known: {', '.join(spec.groups)}")
