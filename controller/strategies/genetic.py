"""The genetic algorithm of Genetic CNN, on any specification.

Xie & Yuille 2017, https://arxiv.org/abs/1703.01513, algorithm 1.  A generation of N
individuals is scored; N are selected by Russian roulette, consecutive pairs exchange
stages, and those that were not crossed mutate.  The fitness of an architecture is the
mean of all rewards that it earned.

Unlike there, a generation is proposed in parts of any size: individuals that wait for a
reward, and are not being trained, come first, in random order, and the next generation
is bred once none waits.  A part larger than these scores others again.

Shapes: N individuals, A remembered architectures, n trials, T decisions.
"""

import flax.struct
import jax
import jax.numpy as jnp

from controller.evolution import (
    crossover,
    mutate_each,
    roulette,
    stage_of,
    uniform_population,
)
from controller.losses import masked_mean
from controller.spec import DecisionSpec
from controller.strategies.distinct import distinct
from controller.types import Proposal, Strategy


@flax.struct.dataclass
class Archive:
    """Rewards by architecture; slots of count 0 are empty."""

    decisions: jax.Array  # int32[A, T]
    mean: jax.Array  # float32[A], of the rewards
    count: jax.Array  # int32[A], rewards


@flax.struct.dataclass
class Generation:
    """The individuals, and all that was learnt of architectures."""

    decisions: jax.Array  # int32[N, T]
    reward: jax.Array  # float32[N], the latest; 0 where there is none
    waiting: jax.Array  # bool[N], not scored yet
    proposed: jax.Array  # bool[N], and it is being trained
    valid: jax.Array  # bool[N], scored, and a trial was valid
    baseline: jax.Array  # float32[], mean fitness of the generation before
    archive: Archive


def genetic(
    spec: DecisionSpec,
    *,
    population: int = 20,
    mutation: float = 0.8,
    flip: float = 0.05,
    crossing: float = 0.2,
    exchange: float = 0.2,
    memory: int = 1024,
) -> Strategy:
    """Builds the strategy; defaults are the paper's on CIFAR-10.

    Where child steps train shared weights, they propose individuals of the current
    generation; ``schedule.uniform=1`` makes them sample uniformly instead.

    Args:
      spec: of the space; see `stage_of` for what crossover exchanges.
      population: N.
      mutation: p_M, probability that an individual mutates, unless it was crossed.
      flip: q_M, probability that a decision of a mutating individual changes.
      crossing: p_C, probability that a pair is crossed.
      exchange: q_C, probability that a crossed pair exchanges a stage.
      memory: A, architectures whose mean reward is kept; the best ones.

    Returns:
      a Strategy.  Trials that are not valid, or have a reward that is not finite, are
      selected only where a generation has no other.  The metric "baseline" is the mean
      fitness of the last whole generation, "advantage" how far the trials' mean reward
      lies above it, and "diversity" the sum over decisions of the entropy of their
      values among the individuals, in nats.

    Raises:
      ValueError: on a number out of its range.
    """
    if population < 2:
        raise ValueError(f"population is {population}; it must be 2 or more")
    if memory < 1:
        raise ValueError(f"memory is {memory}; it must be 1 or more")
    for name, value in (
        ("mutation", mutation),
        ("flip", flip),
        ("crossing", crossing),
        ("exchange", exchange),
    ):
        if not 0 <= value <= 1:
            raise ValueError(f"{name} is {value}; it must lie in [0, 1]")
    stage = stage_of(spec)

    def generation(decisions, baseline, archive):
        size = len(decisions)
        return Generation(
            decisions=decisions,
            reward=jnp.zeros(size, jnp.float32),
            waiting=jnp.ones(size, bool),
            proposed=jnp.zeros(size, bool),
            valid=jnp.zeros(size, bool),
            baseline=baseline,
            archive=archive,
        )

    def init(key):
        archive = Archive(
            decisions=jnp.zeros((memory, spec.length), jnp.int32),
            mean=jnp.zeros(memory, jnp.float32),
            count=jnp.zeros(memory, jnp.int32),
        )
        decisions = uniform_population(spec, key, population)
        return generation(decisions, jnp.float32(0), archive)

    def propose(key, state, n):
        draw = jax.random.uniform(key, (population,))
        others = jnp.where(state.proposed, 2 + draw, 1 + draw)
        order = jnp.argsort(jnp.where(state.waiting & ~state.proposed, draw, others))
        rows = order[jnp.arange(n) % population]
        state = state.replace(proposed=state.proposed.at[rows].set(True))
        return Proposal(state.decisions[rows], jnp.zeros(n)), state

    def breed(key, state):
        select_key, cross_key, who_key, mutate_key = jax.random.split(key, 4)
        fitness = _fitness(state)
        parents = roulette(select_key, fitness, state.valid, population)
        children, crossed = crossover(
            cross_key, state.decisions[parents], stage, crossing, exchange
        )
        mutates = jax.random.bernoulli(who_key, mutation, (population,)) & ~crossed
        rates = jnp.where(mutates, flip, 0.0)
        children = mutate_each(spec, mutate_key, children, rates)
        return generation(children, masked_mean(fitness, state.valid), state.archive)

    def update(key, state, trial):
        valid = trial.valid & jnp.isfinite(trial.reward)
        reward = jnp.where(valid, trial.reward, 0.0).astype(jnp.float32)
        trials = (trial.proposal.decisions, reward, valid)
        state, _ = jax.lax.scan(_record, state, trials)
        metrics = _metrics(spec, state, reward, valid)
        done = ~state.waiting.any()
        new = jax.tree.map(lambda a, b: jnp.where(done, a, b), breed(key, state), state)
        return new, metrics | {"baseline": new.baseline}

    def best(key, state, n):
        archive = state.archive
        there = archive.count > 0
        order = jnp.argsort(jnp.where(there, -archive.mean, jnp.inf))
        drawn = uniform_population(spec, key, memory + n)
        known = jnp.where(there[order, None], archive.decisions[order], drawn[:memory])
        return distinct(jnp.concatenate([known, drawn[memory:]]), n)

    return Strategy(init, propose, update, best, queues=True)


def _record(state: Generation, trial) -> tuple[Generation, None]:
    """Notes one trial, of an individual that waits if one has its decisions."""
    decisions, reward, valid = trial
    same = jnp.all(state.decisions == decisions[None], axis=1)
    # Among equals one that waits; where none does, the individual is scored again.
    first = jnp.argmax(jnp.where(same, 1 + state.waiting, 0))
    row = jnp.where(same.any(), first, len(same))  # out of bounds: dropped
    learnt = jnp.where(valid, row, len(same))
    trained = same & state.proposed
    state = state.replace(
        reward=state.reward.at[learnt].set(reward, mode="drop"),
        waiting=state.waiting.at[row].set(False, mode="drop"),
        proposed=state.proposed & (jnp.arange(len(same)) != jnp.argmax(trained)),
        valid=state.valid.at[learnt].set(True, mode="drop"),
        archive=_remember(state.archive, decisions, reward, valid),
    )
    return state, None


def _remember(archive: Archive, decisions, reward, valid) -> Archive:
    """Averages a valid reward in; a new architecture takes an empty slot or the worst.

    A new one that is no better than the worst of a full archive is forgotten.
    """
    there = archive.count > 0
    same = jnp.all(archive.decisions == decisions[None], axis=1) & there
    value = jnp.where(there, archive.mean, -jnp.inf)
    slot = jnp.where(same.any(), jnp.argmax(same), jnp.argmin(value))
    known = jnp.where(same.any(), archive.count[slot], 0)
    keep = valid & (same.any() | (reward > value[slot]))
    slot = jnp.where(keep, slot, len(there))  # out of bounds: dropped
    mean = jnp.where(known > 0, archive.mean[slot], 0.0)
    mean = mean + (reward - mean) / (known + 1)
    return Archive(
        decisions=archive.decisions.at[slot].set(decisions, mode="drop"),
        mean=archive.mean.at[slot].set(mean, mode="drop"),
        count=archive.count.at[slot].set(known + 1, mode="drop"),
    )


def _fitness(state: Generation) -> jax.Array:
    """float32[N]: the mean reward of each individual's architecture."""
    archive = state.archive
    same = jnp.all(state.decisions[:, None] == archive.decisions[None], axis=2)
    same = same & (archive.count > 0)[None]
    mean = archive.mean[jnp.argmax(same, axis=1)]
    return jnp.where(same.any(axis=1), mean, state.reward)


def _metrics(spec: DecisionSpec, state: Generation, reward, valid):
    share = jax.nn.one_hot(state.decisions, spec.max_choices).mean(0)
    there = state.archive.count > 0
    top = jnp.max(jnp.where(there, state.archive.mean, -jnp.inf))
    advantage = masked_mean(reward, valid) - state.baseline
    return {
        "advantage": jnp.where(valid.any(), advantage, 0.0),
        "diversity": jax.scipy.special.entr(share).sum(),
        "fitness_max": jnp.where(there.any(), top, 0.0),
    }
