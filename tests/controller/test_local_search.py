"""Local search: it climbs to a local optimum, and then starts anew."""

import jax
import jax.numpy as jnp
import numpy as np

from controller.spec import Decision, DecisionSpec, Distinct
from controller.strategies.local_search import local_search
from controller.types import Trial

SPEC = DecisionSpec(
    (
        Decision("a", ("0", "1", "2"), "input"),
        Decision("b", ("0", "1", "2"), "input"),
        Decision("c", ("0", "1", "2", "3"), "op"),
    ),
    rule=Distinct(((0, 1),)),
)


def run(reward_of, steps, n=1, seed=0):
    strategy = local_search(SPEC)

    def step(state, key):
        propose_key, update_key = jax.random.split(key)
        proposal, state = strategy.propose(propose_key, state, n)
        reward = jax.vmap(reward_of)(proposal.decisions)
        trial = Trial(proposal, reward, jnp.isfinite(reward))
        state, _ = strategy.update(update_key, state, trial)
        return state, (proposal.decisions, state.decisions, state.starts)

    key = jax.random.key(seed)
    return jax.jit(
        lambda: jax.lax.scan(step, strategy.init(key), jax.random.split(key, steps))
    )()


def test_neighbors_by_hand():
    table = np.asarray(SPEC.neighbors(jnp.array([0, 1, 3])))
    expected = np.zeros((3, 4), bool)
    expected[0, 2] = expected[1, 2] = True  # 1 is taken by b, 0 by a
    expected[2, :3] = True
    np.testing.assert_array_equal(table, expected.ravel())


def test_it_tries_every_neighbour_once_and_then_starts_anew():
    _, (tried, at, starts) = run(lambda d: jnp.float32(0.5), 12)
    assert np.all(np.asarray(starts[:6]) == 1)  # the start, its 5 neighbours
    first = {tuple(row) for row in np.asarray(tried[:6, 0]).tolist()}
    assert len(first) == 6
    for row in first:
        assert sum(a != b for a, b in zip(row, np.asarray(at[0]), strict=True)) <= 1
    assert int(starts[6]) == 2


def test_it_climbs_to_the_optimum_of_a_separable_reward():
    target = jnp.array([2, 0, 1])
    state, _ = run(lambda d: jnp.mean(d == target), 60, n=2)
    np.testing.assert_array_equal(state.best, target)
    assert float(state.best_reward) == 1


def test_after_a_move_neither_the_point_before_nor_a_sibling_is_asked_for():
    table = jax.random.permutation(jax.random.key(4), 36).reshape(3, 3, 4)
    rows = run(lambda d: 1.0 * table[tuple(d)], 40, n=2, seed=1)[1]
    tried, at, starts = map(np.asarray, rows)
    moves = 0
    for i in range(1, 39):
        if starts[i] != starts[i - 1] or np.all(at[i] == at[i - 1]):
            continue
        moves += 1
        known = {tuple(at[i - 1].tolist()), *map(tuple, tried[i].tolist())}
        later = [j for j in range(i + 1, 40) if np.all(starts[i : j + 1] == starts[i])]
        here = [j for j in later if np.all(at[i:j] == at[i])]
        asked = {tuple(row) for j in here for row in tried[j].tolist()}
        assert not asked & known
    assert moves


def test_invalid_trials_move_nothing():
    state, (_, at, starts) = run(lambda d: jnp.float32(jnp.nan), 8)
    assert int(state.starts) == 0
    assert not np.isfinite(state.best_reward)


def test_a_neighbour_names_the_trial_that_it_is_next_to():
    strategy = local_search(SPEC)
    update = jax.jit(strategy.update)
    propose = jax.jit(strategy.propose, static_argnums=2)
    state, known, named = strategy.init(jax.random.key(0)), [], []
    for step in range(12):
        proposal, state = propose(jax.random.key(step), state, 2)
        for child, parent in zip(proposal.decisions, proposal.parent, strict=True):
            named.append(int(parent))
            if parent >= 0:
                assert int(np.sum(known[int(parent)] != np.asarray(child))) <= 1
                assert int(parent) == int(strategy.alive(state))
        known += list(np.asarray(proposal.decisions))
        reward = jnp.mean(proposal.decisions == jnp.array([[2, 0, 1]]), axis=1)
        trial = Trial(proposal, reward, jnp.ones(2, bool))
        state, _ = update(jax.random.key(0), state, trial)
    assert named[:2] == [-1, -1] and named[2] in (0, 1)
    assert len(set(named)) > 3  # the start, some on the way up, and another start
