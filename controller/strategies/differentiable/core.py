"""What differentiable searches have in common: relaxation, edge rule, schedule.

A supernet runs all live ops of a decision, weighted, and returns the gradient of its
validation loss with respect to these weights.  A `Relaxation` says how weights come out
of parameters; the gradient is pulled back through it, and Adam moves the parameters.
Ops are pruned by a mask of live ones, an argument of the compiled supernet.

"Like the spec" is as in `named`; a column that is no choice is never live.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import optax

from controller.spec import DecisionSpec
from controller.strategies.differentiable.named import (
    ABSENT,
    SKIPS,
    ByGroup,
    cost_table,
    count_named,
    own_choices,
)
from controller.strategies.distinct import distinct
from controller.types import Key, Proposal, Strategy

OVERSAMPLE = 8  # perturbed draws for each of the candidates that `best` wants


@flax.struct.dataclass
class RelaxedState:
    """All that changes while relaxed weights are learnt."""

    params: Any
    opt_state: Any
    live: ByGroup  # bool
    step: jax.Array  # int32[], updates done
    genotype: jax.Array  # int32[T], derived from the weights


class Relaxation(NamedTuple):
    """A method: how weights come out of parameters, and what happens beside Adam.

    Attributes:
      init: ``(key) -> params``.
      weights: ``(params, live, step) -> weights``, like the spec, 0 where dead.
      propose: ``(key, state) -> {"weights", "live"}``, what the supernet runs; None for
        all that is live.
      settle: ``(key, old state, new state, proposal) -> state``, after a step of Adam;
        None for the new state.
      derive: ``(weights) -> int32[T]``; None for `DecisionSpec.derive`.
      live: like the spec, the choices of the start; None for all.
    """

    init: Callable[[Key], Any]
    weights: Callable[[Any, ByGroup, jax.Array], ByGroup]
    propose: Callable[[Key, RelaxedState], dict[str, ByGroup]] | None = None
    settle: Callable[[Key, RelaxedState, RelaxedState, Proposal], Any] | None = None
    derive: Callable[[ByGroup], jax.Array] | None = None
    live: ByGroup | None = None


class Adam(NamedTuple):
    """The optimiser of a relaxation's parameters.

    Attributes:
      learning_rate: its step.
      weight_decay: L2 coefficient, added to the gradient.
      b1, b2: decays of the moments.
    """

    learning_rate: float
    weight_decay: float
    b1: float
    b2: float

    def optimizer(self) -> optax.GradientTransformation:
        """Builds it.

        Raises:
          ValueError: on a number out of its range.
        """
        rate, decay, *moments = self
        if not rate > 0:
            raise ValueError(f"learning_rate is {rate}; it must be positive")
        if not decay >= 0:
            raise ValueError(f"weight_decay is {decay}; it must be 0 or more")
        for name, value in zip(("adam_b1", "adam_b2"), moments, strict=True):
            if not 0 <= value < 1:
                raise ValueError(f"{name} is {value}; it must be in [0, 1)")
        return optax.chain(
            optax.add_decayed_weights(decay), optax.adam(rate, self.b1, self.b2)
        )


def differentiable(
    spec: DecisionSpec,
    relaxation: Relaxation,
    adam: Adam,
    *,
    cost: Mapping[str, float] | None = None,
    cost_weight: float = 0.0,
) -> Strategy:
    """Builds a strategy that learns relaxed weights by their gradients.

    The candidates of `best` are what the weights derive to, and then what they derive
    to when they are multiplied by exp(Gumbel noise).  A trial whose reward is not
    finite, or that is not valid, changes nothing.

    Args:
      spec: of the space.
      relaxation: the method.
      adam: moves its parameters.
      cost: of an op, by the name of its choice, 0 where not named.
      cost_weight: of the expected cost, the sum of weights times costs, in the loss.

    Returns:
      a Strategy.  Its metrics are "alpha_entropy" (nats, mean over rows) and the same
      of each row by "alpha_entropy/NAME", "skips" (skip connections of the derived
      architecture), "skip_share" (the same among its ops) and "changes" (its decisions
      that the update changed); "hessian" where the evaluator measures a curvature.

    Raises:
      ValueError: on a number out of its range, or a cost of an op that is not there.
    """
    if not cost_weight >= 0:
        raise ValueError(f"cost_weight is {cost_weight}; it must be 0 or more")
    optimizer = adam.optimizer()
    derive = relaxation.derive or spec.derive
    prunes = relaxation.settle is not None or relaxation.live is not None
    slopes = jax.tree.map(lambda c: cost_weight * c, cost_table(spec, cost or {}))

    def weights_of(state):
        return relaxation.weights(state.params, state.live, state.step)

    def init(key):
        params = relaxation.init(key)
        live = own_choices(spec) if relaxation.live is None else relaxation.live
        step = jnp.int32(0)
        genotype = derive(relaxation.weights(params, live, step))
        return RelaxedState(params, optimizer.init(params), live, step, genotype)

    def propose(key, state, n):
        if relaxation.propose is None:
            live = state.live if prunes else None
            relaxed = {"weights": weights_of(state), "live": live}
        else:
            relaxed = relaxation.propose(key, state)
        decisions = jnp.broadcast_to(derive(relaxed["weights"]), (n, spec.length))
        return Proposal(decisions, jnp.zeros(n), relaxed), state

    def update(key, state, trial):
        live = trial.proposal.relaxed["live"]
        live = state.live if live is None else live
        _, pullback = jax.vjp(
            lambda params: relaxation.weights(params, live, state.step), state.params
        )
        grads = pullback(jax.tree.map(jnp.add, trial.gradient, slopes))[0]
        steps, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, steps)
        new = state.replace(params=params, opt_state=opt_state, step=state.step + 1)
        if relaxation.settle is not None:
            new = relaxation.settle(key, state, new, trial.proposal)
        weights = weights_of(new)
        new = new.replace(genotype=derive(weights))
        ok = jnp.all(trial.valid & jnp.isfinite(trial.reward))
        new = jax.tree.map(lambda n, o: jnp.where(ok, n, o), new, state)
        metrics = _metrics(spec, weights, state.genotype, new.genotype)
        if trial.curvature is not None:
            metrics["hessian"] = trial.curvature
        return new, metrics

    def best(key, state, n):
        weights = weights_of(state)

        def perturbed(key):
            keys = dict(zip(weights, jax.random.split(key, len(weights)), strict=True))
            return derive(
                {
                    group: w * jnp.exp(jax.random.gumbel(keys[group], w.shape))
                    for group, w in weights.items()
                }
            )

        drawn = jax.vmap(perturbed)(jax.random.split(key, OVERSAMPLE * n))
        return distinct(jnp.vstack([derive(weights), drawn]), n)

    return Strategy(init, propose, update, best, relaxed=True)


# ---- parts of relaxations -----------------------------------------------------------


def normal_logits(spec: DecisionSpec, scale: float) -> Callable[[Key], ByGroup]:
    """``(key) -> logits``, like the spec, drawn from N(0, scale^2)."""

    def init(key):
        keys = jax.random.split(key, len(spec.relaxed))
        return {
            group: scale * jax.random.normal(key, shape)
            for key, (group, shape) in zip(keys, spec.relaxed.items(), strict=True)
        }

    return init


def softmax_weights(logits: ByGroup, live: ByGroup, step: jax.Array) -> ByGroup:
    """`Relaxation.weights` of logits whose softmax does not change with the steps."""
    del step
    return softmax_of_live(logits, live)


def softmax_of_live(
    logits: ByGroup, live: ByGroup, temperature: jax.Array | float = 1.0
) -> ByGroup:
    """``softmax(logits / temperature)`` over the live choices of each row, like both.

    A dead choice has weight 0, and its logit no gradient.
    """

    def rows(logits, live):
        return jax.nn.softmax(logits / temperature, axis=-1, where=live)

    return jax.tree.map(rows, logits, live)


def held(condition: jax.Array, old: RelaxedState, new: RelaxedState) -> RelaxedState:
    """The new state, with the old parameters and optimiser where the condition is."""
    params, opt_state = jax.tree.map(
        lambda o, n: jnp.where(condition, o, n),
        (old.params, old.opt_state),
        (new.params, new.opt_state),
    )
    return new.replace(params=params, opt_state=opt_state)


# ---- diagnostics --------------------------------------------------------------------


def row_entropy(weights: ByGroup) -> ByGroup:
    """Entropy in nats of each row, float[rows], of its weights scaled to sum 1."""

    def rows(weights):
        total = jnp.sum(weights, axis=-1, keepdims=True)
        share = weights / jnp.where(total > 0, total, 1)
        return -jnp.sum(jax.scipy.special.xlogy(share, share), axis=-1)

    return jax.tree.map(rows, weights)


def _metrics(spec, weights, before, after):
    entropy = row_entropy(weights)
    by_name = {
        f"alpha_entropy/{spec.decisions[t].name}": entropy[group][row]
        for group, members in spec.groups.items()
        for row, t in enumerate(members)
    }
    skips, absent = (count_named(spec, after, names) for names in (SKIPS, ABSENT))
    ops = sum(not decision.targets for decision in spec.decisions) - absent
    metrics = {
        "alpha_entropy": jnp.concatenate(list(entropy.values())).mean(),
        "skips": skips,
        "skip_share": jnp.where(ops > 0, skips / jnp.maximum(ops, 1), 0),
        "changes": jnp.sum(before != after),
        **by_name,
    }
    return {name: value.astype(jnp.float32) for name, value in metrics.items()}
