"""The genetic strategy: generations in parts, selection alone, OneMax, bad trials."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from controller.spec import Decision, DecisionSpec
from controller.strategies.genetic import genetic
from controller.types import Proposal, Trial

SPEC = DecisionSpec(
    tuple(
        Decision(f"stage_{s}/{i}", ("no", "yes")) for s in (1, 2, 3) for i in range(4)
    )
)


def ones(decisions):
    """The number of ones, as fitness."""
    return decisions.sum(-1).astype(jnp.float32)


def trial(decisions, reward=None, valid=None):
    """A trial of given decisions; the reward is the number of ones by default."""
    decisions = jnp.asarray(decisions, jnp.int32)
    n = len(decisions)
    reward = ones(decisions) if reward is None else jnp.asarray(reward, jnp.float32)
    valid = jnp.ones(n, bool) if valid is None else jnp.asarray(valid)
    return Trial(Proposal(decisions, jnp.zeros(n)), reward, valid)


def step(strategy, n, state, key):
    """One policy step: (state, (decisions, metrics))."""
    propose_key, update_key = jax.random.split(key)
    proposal, state = strategy.propose(propose_key, state, n)
    state, metrics = strategy.update(update_key, state, trial(proposal.decisions))
    return state, (proposal.decisions, metrics)


def steps(strategy, n, state, count, seed=0):
    keys = jax.random.split(jax.random.key(seed), count)
    run = functools.partial(step, strategy, n)
    return jax.jit(lambda s, k: jax.lax.scan(run, s, k))(state, keys)


def rows(array):
    return sorted(map(tuple, np.asarray(array).tolist()))


# ---- generations in parts -----------------------------------------------------------


def test_a_generation_is_scored_part_by_part_and_each_individual_once():
    strategy = genetic(SPEC, population=12)
    start = strategy.init(jax.random.key(0))
    state, (decisions, _) = steps(strategy, 4, start, 2)
    assert state.waiting.sum() == 4
    np.testing.assert_array_equal(state.decisions, start.decisions)
    third, _ = strategy.propose(jax.random.key(9), state, 4)
    scored = jnp.concatenate([*decisions, third.decisions])
    assert rows(scored) == rows(start.decisions)
    state, _ = strategy.update(jax.random.key(1), state, trial(third.decisions))
    assert state.waiting.all() and not state.valid.any()
    assert np.any(state.decisions != start.decisions)
    np.testing.assert_allclose(state.baseline, ones(start.decisions).mean(), rtol=1e-6)


def test_a_part_larger_than_what_waits_scores_others_again():
    strategy = genetic(SPEC, population=6)
    start = strategy.init(jax.random.key(0))
    state, (decisions, _) = steps(strategy, 4, start, 2)
    first, second = map(rows, decisions)
    rest = [row for row in rows(start.decisions) if row not in first]
    assert all(row in second for row in rest)
    assert all(row in first for row in second if row not in rest)
    assert state.waiting.all() and np.any(state.decisions != start.decisions)
    proposal, _ = strategy.propose(jax.random.key(1), start, 15)
    counts = [rows(proposal.decisions).count(row) for row in rows(start.decisions)]
    assert sorted(counts) == [2, 2, 2, 3, 3, 3]


def test_the_mean_reward_of_a_code_that_recurs_counts():
    strategy = genetic(SPEC, population=4, memory=3)
    state = strategy.init(jax.random.key(0))
    codes = jnp.asarray(np.eye(12, dtype=np.int32)[:4])
    update = jax.jit(strategy.update)
    state, _ = update(jax.random.key(0), state, trial(codes[:1], [0.2]))
    state, _ = update(jax.random.key(0), state, trial(codes[[0, 0]], [0.4, 0.9]))
    state, _ = update(jax.random.key(0), state, trial(codes[:1], [9.0], [False]))
    assert state.archive.count.tolist() == [3, 0, 0]
    np.testing.assert_allclose(state.archive.mean[0], 0.5, rtol=1e-6)
    # The memory is full: a better one takes the place of the worst, a worse one none.
    state, _ = update(jax.random.key(0), state, trial(codes[1:], [0.3, 0.6, 0.7]))
    state, _ = update(jax.random.key(0), state, trial(1 - codes[:1], [0.1]))
    np.testing.assert_array_equal(
        strategy.best(jax.random.key(0), state, 3), codes[jnp.array([3, 2, 0])]
    )


def test_best_are_distinct_where_the_memory_holds_too_few():
    strategy = genetic(SPEC, population=4, memory=8)
    state, _ = steps(strategy, 4, strategy.init(jax.random.key(0)), 3)
    best = np.asarray(strategy.best(jax.random.key(0), state, 20))
    assert len(np.unique(best, axis=0)) == 20
    assert best[0].sum() == np.asarray(state.archive.mean).max()


# ---- what breeding does -------------------------------------------------------------


def test_without_mutation_and_crossover_only_selection_is_left():
    strategy = genetic(SPEC, population=16, flip=0.0, crossing=0.0)
    start = strategy.init(jax.random.key(0))
    state, _ = steps(strategy, 16, start, 1)
    parents, worst = rows(start.decisions), np.asarray(ones(start.decisions)).min()
    assert set(rows(state.decisions)) <= set(parents)
    assert np.asarray(ones(state.decisions)).min() > worst
    state, (_, metrics) = steps(strategy, 16, start, 60)
    assert len(np.unique(np.asarray(state.decisions), axis=0)) == 1  # taken over
    assert metrics["entropy"][0] > 7 and metrics["entropy"][-1] == 0


def test_fitness_of_ones_rises_to_the_maximum():
    strategy = genetic(SPEC, population=20, flip=0.1)
    keys = jax.random.split(jax.random.key(1), 3)
    start = jax.vmap(strategy.init)(keys)
    run = functools.partial(step, strategy, 10)

    @jax.jit
    @jax.vmap
    def search(state, key):
        return jax.lax.scan(run, state, jax.random.split(key, 100))

    state, (decisions, metrics) = search(start, keys)
    mean = np.asarray(decisions).sum(-1).mean(-1)  # [seeds, steps]
    assert np.all(mean[:, :2].mean(1) < 7) and np.all(mean[:, -10:].mean(1) > 8.5)
    assert np.all(metrics["fitness_max"][:, -1] == 12)
    best = jax.vmap(lambda s: strategy.best(keys[0], s, 1))(state)
    assert np.all(best == 1)


def test_stages_of_children_are_those_of_their_parents():
    strategy = genetic(SPEC, population=16, crossing=1.0, exchange=0.5)
    start = strategy.init(jax.random.key(0))
    state, _ = steps(strategy, 16, start, 1)
    assert set(rows(state.decisions)) - set(rows(start.decisions))
    for s in range(3):
        part = slice(4 * s, 4 * s + 4)
        assert set(rows(state.decisions[:, part])) <= set(
            rows(start.decisions[:, part])
        )


# ---- trials that failed -------------------------------------------------------------


@pytest.mark.parametrize("reward", [np.nan, np.inf, 100.0])
def test_individuals_of_invalid_trials_are_never_selected(reward):
    strategy = genetic(SPEC, population=8, flip=0.0, crossing=0.0)
    state = strategy.init(jax.random.key(0))
    invalid = state.decisions[0]
    rewards = ones(state.decisions).at[0].set(reward)
    valid = jnp.arange(8) != (0 if reward == 100 else 9)
    result = trial(state.decisions, rewards, valid)
    new, metrics = strategy.update(jax.random.key(1), state, result)
    assert not np.all(np.asarray(new.decisions == invalid[None]), axis=1).any()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((new, metrics)))
    held = new.archive.decisions[new.archive.count > 0]
    assert tuple(invalid.tolist()) not in rows(held)


def test_a_generation_without_a_valid_trial_still_breeds():
    strategy = genetic(SPEC, population=8)
    state = strategy.init(jax.random.key(0))
    result = trial(state.decisions, jnp.full(8, jnp.nan))
    state, metrics = strategy.update(jax.random.key(1), state, result)
    assert state.waiting.all() and metrics["fitness_max"] == 0
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((state, metrics)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"population": 1}, "population is 1; it must be 2 or more"),
        ({"memory": 0}, "memory is 0; it must be 1 or more"),
        ({"flip": 1.5}, r"flip is 1.5; it must lie in \[0, 1\]"),
        ({"crossing": -0.1}, r"crossing is -0.1; it must lie in \[0, 1\]"),
    ],
)
def test_numbers_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        genetic(SPEC, **arguments)
