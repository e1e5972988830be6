"""Regularized (ageing) evolution, which found AmoebaNet.

Real et al. 2019, https://arxiv.org/abs/1802.01548, algorithm 1: a cycle draws S of the
P individuals, copies the best of them with one mutation, and the oldest of all dies.

Shapes: P individuals, S drawn, n trials, T decisions.
"""

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from controller import tournament
from controller.evolution import uniform_population
from controller.losses import masked_mean
from controller.spec import DecisionSpec
from controller.strategies.distinct import distinct
from controller.types import Proposal, Strategy


@flax.struct.dataclass
class Population:
    """The individuals; slots from `count` on are empty."""

    decisions: jax.Array  # int32[P, T]
    fitness: jax.Array  # float32[P], -inf where empty
    born: jax.Array  # int32[P], number of the valid trial
    count: jax.Array  # int32[], individuals
    trials: jax.Array  # int32[], valid ones so far
    number: jax.Array  # int32[P], of the trial, the others counted too
    seen: jax.Array  # int32[], trials so far, the others counted too
    key: jax.Array  # key[], of the last tournament


def regularized_evolution(
    spec: DecisionSpec,
    *,
    population: int = 100,
    sample: int = 25,
    ageing: bool = True,
    replace: bool = True,
    identity: float = 0.05,
) -> Strategy:
    """Builds the strategy; the first P proposals are drawn by `DecisionSpec.sample`.

    A mutation is the identity, or takes one of the spec's groups ("op", "input", ...),
    each with equal probability, and changes one of its decisions to another legal
    value.  A proposal names its parent, whose weights it may inherit.

    Args:
      spec: of the space.
      population: P.
      sample: S, individuals of a tournament.
      ageing: whether the oldest individual dies; else the worst of the tournament.
      replace: whether a tournament may draw an individual twice.
      identity: probability that a child is its parent unchanged.

    Returns:
      a Strategy.  Trials that are not valid are never individuals.

    Raises:
      ValueError: on a number out of its range.
    """
    if population < 2:
        raise ValueError(f"population is {population}; it must be 2 or more")
    if not 1 <= sample <= population:
        raise ValueError(
            f"sample is {sample}; it must lie in 1 to population={population}"
        )
    if not 0 <= identity < 1:
        raise ValueError(f"identity is {identity}; it must lie in [0, 1)")
    weights = _group_weights(spec)

    def init(key):
        return Population(
            decisions=jnp.zeros((population, spec.length), jnp.int32),
            fitness=jnp.full(population, -jnp.inf, jnp.float32),
            born=jnp.zeros(population, jnp.int32),
            count=jnp.int32(0),
            trials=jnp.int32(0),
            number=jnp.full(population, -1, jnp.int32),
            seen=jnp.int32(0),
            key=key,
        )

    def drawn(state, i):
        return tournament.entrants(
            jax.random.fold_in(state.key, i),
            state.count,
            population,
            sample,
            replace=replace,
        )

    def propose(key, state, n):
        draw_key, key = jax.random.split(key)
        state = state.replace(key=draw_key)

        def one(i, key):
            sample_key, identity_key, mutate_key = jax.random.split(key, 3)
            winner = tournament.winner(drawn(state, i), state.fitness)
            parent = state.decisions[winner]
            child = spec.mutate(mutate_key, parent, weights)
            same = jax.random.bernoulli(identity_key, identity)
            child = jnp.where(same, parent, child)
            # Where many are proposed at once, the others may not have been scored yet.
            orphan = (state.count + i < population) | (winner >= state.count)
            decisions = jnp.where(orphan, spec.sample(sample_key), child)
            return decisions, jnp.where(orphan, -1, state.number[winner])

        keys = jax.random.split(key, n)
        decisions, parents = jax.vmap(one)(jnp.arange(n), keys)
        return Proposal(decisions, jnp.zeros(n), parent=parents), state

    def update(key, state, trial):
        valid = trial.valid & jnp.isfinite(trial.reward)
        before = state

        def insert(state, item):
            i, decisions, reward, valid = item
            full = state.count == population
            dies = jnp.argmin(state.born)
            if not ageing:  # and nobody who was born in this update
                fitness = jnp.where(state.born < before.trials, before.fitness, jnp.inf)
                dies = tournament.loser(drawn(before, i), fitness)
                alive = jnp.isfinite(fitness[dies])
                dies = jnp.where(alive, dies, jnp.argmin(fitness))
            slot = jnp.where(valid, jnp.where(full, dies, state.count), population)
            new = state.replace(  # slot P, of an invalid trial, is out of bounds
                decisions=state.decisions.at[slot].set(decisions, mode="drop"),
                fitness=state.fitness.at[slot].set(reward, mode="drop"),
                born=state.born.at[slot].set(state.trials, mode="drop"),
                count=jnp.minimum(state.count + valid, population),
                trials=state.trials + valid,
                number=state.number.at[slot].set(state.seen, mode="drop"),
                seen=state.seen + 1,
            )
            return new, None

        decisions = trial.proposal.decisions
        items = (jnp.arange(len(decisions)), decisions, trial.reward, valid)
        state, _ = jax.lax.scan(insert, state, items)
        return state, _metrics(state)

    def best(key, state, n):
        order = jnp.argsort(-state.fitness)
        table = state.decisions[order]
        there = (jnp.arange(population) < state.count)[:, None]
        drawn = uniform_population(spec, key, population)
        return distinct(jnp.where(there, table, drawn), n)

    return Strategy(init, propose, update, best, alive=lambda state: state.number)


def _group_weights(spec: DecisionSpec) -> jax.Array:
    """Probabilities float[T] of the positions under which groups are equally likely."""
    weights = np.zeros(spec.length, np.float32)
    for members in spec.groups.values():
        weights[list(members)] = 1 / (len(members) * len(spec.groups))
    return jnp.asarray(weights)


def _metrics(state: Population) -> dict[str, jax.Array]:
    there = jnp.arange(len(state.fitness)) < state.count
    return {
        "fitness_mean": masked_mean(state.fitness, there),
        "fitness_max": jnp.where(state.count > 0, jnp.max(state.fitness), 0.0),
    }
