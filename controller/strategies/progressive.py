"""Progressive search: train few, predict many, train the best of them.

PNAS, Liu et al. 2018, https://arxiv.org/abs/1712.00559, algorithm 1.  All cells of one
block are trained; a surrogate is fitted; the trained cells are extended by every block,
the K best by prediction are trained, and so on.

A spec with a decision of group "blocks", from 1 on, goes through these levels.  Any
other is one level: some architectures are drawn uniformly, and then, again and again,
the K best by prediction of all that were not tried are trained.

Shapes: K beam, Q room in the queue, M trials of room, C candidates, n trials, T
decisions.
"""

import math
from collections.abc import Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from controller.evolution import uniform_population
from controller.options import build
from controller.spec import DecisionSpec, has_levels
from controller.strategies import expansion
from controller.strategies.distinct import distinct
from controller.surrogates import SURROGATES, Surrogate
from controller.types import Proposal, Strategy
from controller.when import when

ENUMERABLE = 2**16  # spaces up to this size are ranked as a whole,
INDEXED = 2**24  # if they have no more vectors, the illegal ones counted


@flax.struct.dataclass
class ProgressiveState:
    """The trials so far, and those that come next."""

    decisions: jax.Array  # int32[M, T], trials
    reward: jax.Array  # float32[M]
    count: jax.Array  # int32[], valid trials so far; the oldest are overwritten
    queue: jax.Array  # int32[Q, T], in order
    length: jax.Array  # int32[], of the queue
    done: jax.Array  # int32[], of the queue's that were proposed
    known: jax.Array  # bool[Q], of the queue's whose trial is there
    failed: jax.Array  # bool[Q], of the queue's whose trial was not valid
    level: jax.Array  # int32[], blocks - 1
    tried: jax.Array  # bool[C] of an enumerable space; else bool[1]
    best: jax.Array  # int32[T], of all trials
    best_reward: jax.Array  # float32[]


def progressive(
    spec: DecisionSpec,
    *,
    beam: int = 256,
    first: int = 16,
    surrogate: str = "mlp",
    surrogate_options: Mapping[str, Any] | None = None,
    pool: int = 4096,
    capacity: int = 2048,
) -> Strategy:
    """Builds the strategy.

    Args:
      spec: of the space.
      beam: K, architectures that are trained between two fits.
      first: drawn uniformly at first, where the spec has no blocks.
      surrogate: "linear", "mlp" or "lstm", see `controller.surrogates`.
      surrogate_options: its arguments.
      pool: candidates that are ranked where the spec has no blocks and is too large to
        be ranked as a whole: half drawn uniformly, half mutations of the best.
      capacity: M, trials that the surrogate is fitted to, the newest.

    Returns:
      a Strategy.  Where the queue's end is no multiple of n, or the last ones of a
      level are under way, the first ones are trained again.

    Raises:
      ValueError: on an unknown surrogate or a number out of its range.
    """
    for name, value in (
        ("beam", beam),
        ("first", first),
        ("pool", pool),
        ("capacity", capacity),
    ):
        if value < 1:
            raise ValueError(f"{name} is {value}; it must be 1 or more")
    if surrogate not in SURROGATES:
        raise ValueError(
            f"surrogate is {surrogate!r}; known: {', '.join(sorted(SURROGATES))}"
        )
    network = (surrogate_options or {}).get("network", surrogate)
    if network != surrogate:
        raise ValueError(
            f"surrogate_options.network is {network!r} and surrogate {surrogate!r}; "
            "leave the former out"
        )
    model = build("surrogate_options", SURROGATES[surrogate], spec, surrogate_options)
    if has_levels(spec):
        source = expansion.levels(spec, beam)
    elif spec.size() <= ENUMERABLE and math.prod(spec.num_choices) <= INDEXED:
        source = expansion.everything(spec, first)
    else:
        source = expansion.pool(spec, first, pool)
    return _strategy(spec, model, source, beam, capacity)


# ---- the strategy -------------------------------------------------------------------


def _strategy(spec, model: Surrogate, source, beam: int, capacity: int) -> Strategy:
    room = max(source.room, beam)

    def init(key):
        queue = source.first(key)
        padded = jnp.zeros((room, spec.length), jnp.int32).at[: len(queue)].set(queue)
        return ProgressiveState(
            decisions=jnp.zeros((capacity, spec.length), jnp.int32),
            reward=jnp.zeros(capacity),
            count=jnp.int32(0),
            queue=padded,
            length=jnp.int32(len(queue)),
            done=jnp.int32(0),
            known=jnp.zeros(room, bool),
            failed=jnp.zeros(room, bool),
            level=jnp.int32(0),
            tried=jnp.zeros(source.size, bool),
            best=queue[0],
            best_reward=jnp.float32(-jnp.inf),
        )

    def propose(key, state, n):
        decisions = state.queue[(state.done + jnp.arange(n)) % state.length]
        tried = source.mark(state.tried, decisions)
        state = state.replace(done=state.done + n, tried=tried)
        return Proposal(decisions, jnp.zeros(n)), state

    def update(key, state, trial):
        decisions = trial.proposal.decisions
        valid = trial.valid & jnp.isfinite(trial.reward)
        place = state.count + jnp.cumsum(valid) - 1
        slot = jnp.where(valid, place % capacity, capacity)
        reward = jnp.where(valid, trial.reward, -jnp.inf)
        i = jnp.argmax(reward)
        record = reward[i] > state.best_reward
        same = _equal(state.queue, decisions)
        state = state.replace(
            best=jnp.where(record, decisions[i], state.best),
            best_reward=jnp.where(record, reward[i], state.best_reward),
            decisions=state.decisions.at[slot].set(decisions, mode="drop"),
            reward=state.reward.at[slot].set(trial.reward, mode="drop"),
            count=state.count + jnp.sum(valid),
            known=state.known | same.any(1),
            failed=state.failed | (same & ~valid[None]).any(1),
        )
        advance = state.done >= state.length
        if source.levels > 1:  # a level is extended when all of it is known
            there = jnp.arange(room) < state.length
            advance &= jnp.all(state.known | ~there)
        state = when(advance, refill, key, state)
        top = jnp.where(state.count > 0, state.best_reward, 0.0)
        metrics = {"level": state.level, "trials": state.count, "reward_max": top}
        return state, {name: x.astype(jnp.float32) for name, x in metrics.items()}

    def refill(key, state):
        """The queue of the best by prediction."""
        fit_key, key = jax.random.split(key)
        mask = jnp.arange(capacity) < state.count
        params = model.fit(fit_key, state.decisions, state.reward, mask)
        candidates, there = source.candidates(key, state)
        predicted = jnp.where(there, model.predict(params, candidates), -jnp.inf)
        value, best = _top(predicted, min(beam, len(candidates)))
        found = jnp.sum(jnp.isfinite(value))
        queue = state.queue.at[: len(best)].set(candidates[best])
        return state.replace(
            queue=jnp.where(found > 0, queue, state.queue),
            length=jnp.where(found > 0, found, state.length),
            done=jnp.int32(0),
            known=jnp.zeros(room, bool),
            failed=jnp.zeros(room, bool),
            level=jnp.minimum(state.level + (found > 0), source.levels - 1),
        )

    def best(key, state, n):
        mask = jnp.arange(capacity) < state.count
        order = jnp.argsort(jnp.where(mask, -state.reward, jnp.inf))
        drawn = uniform_population(spec, key, n)
        table = jnp.where(mask[order][:, None], state.decisions[order], state.best)
        return distinct(jnp.vstack([state.best, table, drawn]), n)

    return Strategy(init, propose, update, best, queues=True)


def _equal(queue, decisions):
    """bool[Q, n]: which of the queue is which of the trials."""
    return jnp.all(queue[:, None] == decisions[None], axis=2)


def _top(values, k):
    """`jax.lax.top_k`, which sorts, but for k = 1."""
    if k > 1:
        return jax.lax.top_k(values, k)
    best = jnp.argmax(values)[None]
    return values[best], best
