"""ProxylessNAS: binary gates, so that one path of the supernet runs at a time.

Cai et al. 2019, https://arxiv.org/abs/1812.00332; the update of two paths as in the
authors' code, mit-han-lab/proxylessnas.  A proposal draws some ops of an edge without
replacement, and of these one that is active: its weight is 1, that of the others 0.
Training runs the active op alone; for the architecture's gradient the others run too,
and give dL/dg_j = <dL/dm, o_j(x)>.  With p the softmax over the ops that were drawn,

    dL/dalpha_i = sum_j dL/dg_j p_j (delta_ij - p_i),

after which their logits are shifted so that the sum of exp(alpha) over them, and with
it the probability of every other op, is as before.
"""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp

from controller.spec import DecisionSpec
from controller.strategies.differentiable.core import (
    Adam,
    Relaxation,
    differentiable,
    normal_logits,
    softmax_weights,
)
from controller.strategies.differentiable.named import ABSENT, named_choices
from controller.types import Strategy


def proxylessnas(
    spec: DecisionSpec,
    *,
    paths: int | None = 2,
    idle: Sequence[str] = ABSENT,
    cost: Mapping[str, float] | None = None,
    cost_weight: float = 0.0,
    learning_rate: float = 1e-3,
    weight_decay: float = 0.0,
    adam_b1: float = 0.0,
    adam_b2: float = 0.999,
    init_scale: float = 1e-3,
) -> Strategy:
    """Builds the strategy.

    Args:
      spec: of the space.
      paths: ops of an edge that one update compares, 2 or more; None for all.
      idle: names of ops; an edge whose active op is one of them is not updated, and
        Adam does not see its gradient.
      cost: of an op, by its name, 0 where not named; say, milliseconds.
      cost_weight: of the expected cost in the loss, over the ops that were drawn.
      learning_rate: of Adam.
      weight_decay: L2 coefficient of the logits.
      adam_b1, adam_b2: decays of Adam's moments.
      init_scale: standard deviation of the first logits.

    Returns:
      a Strategy.

    Raises:
      ValueError: on a number out of its range, or a cost of an op that is not there.
    """
    if paths is not None and paths < 2:
        raise ValueError(f"paths is {paths}; it must be 2 or more, or none for all")
    is_idle = named_choices(spec, idle)

    def propose(key, state):
        weights, live = {}, {}
        path = jnp.zeros(spec.length, jnp.int32)
        for group, logits in state.params.items():
            key, draw_key = jax.random.split(key)
            drawn = draw_paths(draw_key, logits, state.live[group], paths)
            weights[group], live[group] = drawn
            members = jnp.array(spec.groups[group])
            path = path.at[members].set(jnp.argmax(drawn[0], axis=-1))
        return {"weights": weights, "live": live, "path": path}

    def settle(key, old, new, proposal):
        gates, drawn = proposal.relaxed["weights"], proposal.relaxed["live"]
        rests = jax.tree.map(
            lambda gates, is_idle: jnp.any((gates > 0) & is_idle, -1, keepdims=True),
            gates,
            is_idle,
        )

        def held_rows(old, new):
            return jax.tree.map(jnp.where, rests, old, new)

        like_params = jax.tree.structure(old.params)

        def is_moment(subtree):
            return jax.tree.structure(subtree) == like_params

        opt_state = jax.tree.map(
            lambda old, new: held_rows(old, new) if is_moment(old) else new,
            old.opt_state,
            new.opt_state,
            is_leaf=is_moment,
        )
        params = jax.tree.map(rescaled, old.params, new.params, drawn)
        return new.replace(params=held_rows(old.params, params), opt_state=opt_state)

    return differentiable(
        spec,
        Relaxation(
            normal_logits(spec, init_scale),
            softmax_weights,
            propose=propose,
            settle=settle,
        ),
        Adam(learning_rate, weight_decay, adam_b1, adam_b2),
        cost=cost,
        cost_weight=cost_weight,
    )


def draw_paths(
    key: jax.Array, logits: jax.Array, live: jax.Array, paths: int | None
) -> tuple[jax.Array, jax.Array]:
    """Draws ops of each row without replacement, and which of them is active.

    Args:
      key: consumed.
      logits: float[rows, choices].
      live: bool[rows, choices].
      paths: how many, where there are so many; None for all.

    Returns:
      gates float[rows, choices], 1 at the active op; and which were drawn, bool.
    """
    draw_key, active_key = jax.random.split(key)
    if paths is not None and paths < logits.shape[-1]:
        # The largest k of Gumbel-perturbed logits are such a draw.
        noise = jax.random.gumbel(draw_key, logits.shape)
        perturbed = jnp.where(live, logits + noise, -jnp.inf)
        least = jax.lax.top_k(perturbed, paths)[0][:, -1:]
        live = live & (perturbed >= least)
    active = jax.random.categorical(active_key, jnp.where(live, logits, -jnp.inf))
    return jax.nn.one_hot(active, logits.shape[-1]), live


def rescaled(old: jax.Array, new: jax.Array, drawn: jax.Array) -> jax.Array:
    """New logits, shifted to leave the probability of what was not drawn as it was.

    Args:
      old, new: float[rows, choices], before and after a step.
      drawn: bool[rows, choices].

    Returns:
      float[rows, choices]; the sum of exp over the drawn ops of a row is the old one.
    """

    def log_mass(logits):
        return jax.nn.logsumexp(logits, axis=-1, keepdims=True, where=drawn)

    return jnp.where(drawn, new - log_mass(new) + log_mass(old), old)
