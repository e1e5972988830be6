"""The genetic strategy: generations in parts, selection alone, OneMax, bad trials."""

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


class Driver:
    """A strategy with compiled functions, its first state, and what a seed does."""

    def __init__(self, jit, parts, **arguments):
        self.strategy = genetic(SPEC, **arguments)
        self.parts = parts  # individuals proposed at a time
        self.init = jit(self.strategy.init)
        self.start = self.init(jax.random.key(0))
        self.propose = jit(self.strategy.propose, static_argnums=2)
        self.update = jit(self.strategy.update)
        self.best = jit(self.strategy.best, static_argnums=2)

    def run(self, state, count):
        """The state after so many steps, proposals [count, n, T] and metrics."""
        history = []
        for key in jax.random.split(jax.random.key(7), count):
            proposal, state = self.propose(key, state, self.parts)
            state, metrics = self.update(key, state, trial(proposal.decisions))
            history.append((proposal.decisions, metrics))
        return state, *jax.tree.map(lambda *leaves: np.stack(leaves), *history)


@pytest.fixture(scope="module")
def driver(quick_jit):
    """Eight individuals in parts of four, and a memory of nine."""
    return Driver(quick_jit, 4, population=8, memory=9)


@pytest.fixture(scope="module")
def selection(quick_jit):
    """Neither mutation nor crossover."""
    return Driver(quick_jit, 8, population=8, flip=0.0, crossing=0.0)


def rows(array):
    return sorted(map(tuple, np.asarray(array).tolist()))


# ---- generations in parts -----------------------------------------------------------


def test_a_generation_is_scored_part_by_part_and_each_individual_once(driver):
    state, first, _ = driver.run(driver.start, 1)
    assert state.waiting.sum() == 4 and state.baseline == 0
    np.testing.assert_array_equal(state.decisions, driver.start.decisions)
    second, _ = driver.propose(jax.random.key(9), state, 4)
    scored = jnp.concatenate([first[0], second.decisions])
    assert rows(scored) == rows(driver.start.decisions)
    state, _ = driver.update(jax.random.key(1), state, trial(second.decisions))
    assert state.waiting.all() and not state.valid.any()
    assert np.any(state.decisions != driver.start.decisions)
    mean = ones(driver.start.decisions).mean()
    np.testing.assert_allclose(state.baseline, mean, rtol=1e-6)


def test_a_part_larger_than_what_waits_scores_others_again(driver):
    individuals = rows(driver.start.decisions)
    state, (first,), _ = driver.run(driver.start, 1)
    proposal, _ = driver.propose(jax.random.key(1), state, 6)
    rest = [row for row in individuals if row not in rows(first)]
    assert rows(proposal.decisions[:4]) == sorted(rest)
    assert set(rows(proposal.decisions[4:])) <= set(rows(first))
    proposal, _ = driver.propose(jax.random.key(1), driver.start, 20)
    counts = [rows(proposal.decisions).count(row) for row in individuals]
    assert sorted(counts) == [2, 2, 2, 2, 3, 3, 3, 3]


def test_individuals_under_way_are_not_proposed_again(driver):
    first, state = driver.propose(jax.random.key(1), driver.start, 4)
    second, state = driver.propose(jax.random.key(2), state, 4)
    everybody = jnp.concatenate([first.decisions, second.decisions])
    assert rows(everybody) == rows(driver.start.decisions)
    state, _ = driver.update(jax.random.key(3), state, trial(first.decisions))
    assert state.waiting.sum() == 4 and state.proposed.sum() == 4
    state, _ = driver.update(jax.random.key(4), state, trial(second.decisions))
    assert state.waiting.all() and not state.proposed.any()


def test_the_mean_reward_of_a_code_that_recurs_counts(driver):
    codes, key = np.eye(12, dtype=np.int32), jax.random.key(0)
    recurs = trial(codes[[0, 0, 0, 0]], [0.2, 0.4, 9.0, 0.9], [True, True, False, True])
    state, _ = driver.update(key, driver.start, recurs)
    assert state.archive.count.tolist() == [3] + [0] * 8
    np.testing.assert_allclose(state.archive.mean[0], 0.5, rtol=1e-6)
    # The memory is full: a better one takes the place of the worst, a worse one none.
    rewards = [0.3, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2]
    for part in (slice(0, 4), slice(4, 8)):
        result = trial(codes[1:9][part], rewards[part])
        state, _ = driver.update(key, state, result)
    others = trial(1 - codes[:4], [0.1, 0.55, 0.2, 0.3])
    state, _ = driver.update(key, state, others)
    best = np.asarray(driver.best(key, state, 9))
    expected = [*codes[8:1:-1], 1 - codes[1], codes[0]]
    np.testing.assert_array_equal(best, expected)


def test_best_are_distinct_where_the_memory_holds_too_few(driver):
    state, _, _ = driver.run(driver.start, 1)
    best = np.asarray(driver.best(jax.random.key(0), state, 20))
    assert len(np.unique(best, axis=0)) == 20
    assert best[0].sum() == np.asarray(state.archive.mean).max()


# ---- what breeding does -------------------------------------------------------------


def test_without_mutation_and_crossover_only_selection_is_left(selection):
    start = selection.start
    state, _, _ = selection.run(start, 1)
    assert set(rows(state.decisions)) <= set(rows(start.decisions))
    worst = np.asarray(ones(start.decisions)).min()
    assert np.asarray(ones(state.decisions)).min() > worst
    state, _, metrics = selection.run(start, 60)
    assert len(np.unique(np.asarray(state.decisions), axis=0)) == 1  # taken over
    assert metrics["diversity"][0] > 6 and metrics["diversity"][-1] == 0
    parents = rows(start.decisions)
    assert tuple(state.decisions[0].tolist()) in parents


def test_fitness_of_ones_rises_to_the_maximum(quick_jit):
    strategy, seeds = genetic(SPEC, population=20, flip=0.1), 3
    keys = jax.random.split(jax.random.key(1), seeds)
    state = quick_jit(jax.vmap(strategy.init))(keys)

    @quick_jit
    @jax.vmap
    def generation(state, key):
        for part in range(2):
            part_key = jax.random.fold_in(key, part)
            proposal, state = strategy.propose(part_key, state, 10)
            state, metrics = strategy.update(part_key, state, trial(proposal.decisions))
        return state, metrics

    means = []
    for number in range(50):
        means.append(np.asarray(ones(state.decisions)).mean(1))
        state, metrics = generation(state, jax.random.split(keys[0], (50, 3))[number])
    assert np.all(means[0] < 7) and np.all(np.mean(means[-5:], 0) > 9)
    assert np.all(metrics["fitness_max"] == 12)
    order = np.argsort(-np.asarray(state.archive.mean), axis=1)
    for seed in range(seeds):
        assert np.all(state.archive.decisions[seed, order[seed, 0]] == 1)


def test_stages_of_children_are_those_of_their_parents(quick_jit):
    driver = Driver(quick_jit, 8, population=8, crossing=1.0, exchange=0.5)
    state, _, _ = driver.run(driver.start, 1)
    start = driver.start.decisions
    assert set(rows(state.decisions)) - set(rows(start))
    for s in range(3):
        part = slice(4 * s, 4 * s + 4)
        assert set(rows(state.decisions[:, part])) <= set(rows(start[:, part]))


# ---- trials that failed -------------------------------------------------------------


@pytest.mark.parametrize("reward", [np.nan, np.inf, 100.0])
def test_individuals_of_invalid_trials_are_never_selected(selection, reward):
    state = selection.start
    invalid = tuple(state.decisions[0].tolist())
    rewards = ones(state.decisions).at[0].set(reward)
    valid = jnp.arange(8) != (0 if reward == 100 else 9)
    result = trial(state.decisions, rewards, valid)
    new, metrics = selection.update(jax.random.key(1), state, result)
    assert invalid not in rows(new.decisions)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((new, metrics)))
    assert invalid not in rows(new.archive.decisions[new.archive.count > 0])


def test_an_individual_whose_second_trial_is_not_valid_stays(driver):
    state, (first,), _ = driver.run(driver.start, 1)
    again = trial(first, jnp.zeros(4), [False] * 4)
    new, _ = driver.update(jax.random.key(1), state, again)
    np.testing.assert_array_equal(new.valid, state.valid)
    np.testing.assert_array_equal(new.reward, state.reward)


def test_a_generation_without_a_valid_trial_still_breeds(selection):
    state = selection.start
    result = trial(state.decisions, jnp.full(8, jnp.nan))
    new, metrics = selection.update(jax.random.key(1), state, result)
    assert new.waiting.all() and metrics["fitness_max"] == 0
    assert set(rows(new.decisions)) <= set(rows(state.decisions))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((new, metrics)))


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
