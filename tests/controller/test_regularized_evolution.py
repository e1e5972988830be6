"""Ageing evolution: who is chosen, who dies, and what that is good for."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from controller import tournament
from controller.spec import Decision, DecisionSpec, Distinct
from controller.strategies.regularized_evolution import regularized_evolution
from controller.types import Proposal, Trial

BITS = DecisionSpec(tuple(Decision(f"bit_{i}", ("0", "1")) for i in range(12)))
CELL = DecisionSpec(
    (
        Decision("left", ("a", "b", "c"), "input"),
        Decision("op", tuple("pqrst"), "op"),
        Decision("right", ("a", "b", "c"), "input"),
    )
)


def ones(key, decisions):
    return jnp.mean(decisions.astype(jnp.float32), axis=-1)


def search(strategy, key, reward, cycles, n=1):
    """The last state, and the proposals int32[cycles, n, T] with their rewards."""

    def cycle(state, key):
        propose_key, reward_key, update_key = jax.random.split(key, 3)
        proposal, state = strategy.propose(propose_key, state, n)
        earned = reward(reward_key, proposal.decisions)
        trial = Trial(proposal, earned, jnp.ones(n, bool))
        state, _ = strategy.update(update_key, state, trial)
        return state, (proposal.decisions, earned, state.born, state.count)

    init_key, key = jax.random.split(key)
    start = strategy.init(init_key)
    return jax.lax.scan(cycle, start, jax.random.split(key, cycles))


def filled(strategy, rows, reward, state=None):
    """The state after trials."""
    if state is None:
        state = strategy.init(jax.random.key(0))
    n = len(rows)
    trial = Trial(Proposal(rows, jnp.zeros(n)), reward, jnp.ones(n, bool))
    return jax.jit(strategy.update)(jax.random.key(0), state, trial)[0]


def proposed(strategy, state, n):
    """Proposals int32[n, T]."""
    propose = jax.jit(strategy.propose, static_argnums=2)
    return np.asarray(propose(jax.random.key(1), state, n)[0].decisions)


def test_every_individual_lives_exactly_p_cycles():
    strategy = regularized_evolution(BITS, population=6, sample=3)
    run = jax.jit(partial(search, strategy, reward=ones, cycles=30))
    _, (_, _, born, count) = run(jax.random.key(0))
    np.testing.assert_array_equal(count, np.minimum(np.arange(1, 31), 6))
    for cycle in range(6, 30):
        assert sorted(born[cycle]) == list(range(cycle - 5, cycle + 1))


def test_a_child_names_the_trial_of_its_parent():
    strategy = regularized_evolution(BITS, population=3, sample=1, identity=0.0)
    update = jax.jit(strategy.update)
    propose = jax.jit(strategy.propose, static_argnums=2)
    state, known = strategy.init(jax.random.key(0)), []
    for cycle in range(12):
        proposal, state = propose(jax.random.key(cycle), state, 2)
        for child, parent in zip(proposal.decisions, proposal.parent, strict=True):
            assert (parent >= 0) == (len(known) >= 3 + 1)  # one trial is not valid
            if parent >= 0:
                assert int(np.sum(known[int(parent)] != np.asarray(child))) == 1
                assert int(parent) in np.asarray(strategy.alive(state))
        known += list(np.asarray(proposal.decisions))
        valid = jnp.array([cycle > 0, True])
        state, _ = update(jax.random.key(0), state, Trial(proposal, jnp.ones(2), valid))
    assert sorted(np.asarray(strategy.alive(state)).tolist()) == [21, 22, 23]


def test_the_parent_is_the_best_where_all_are_drawn():
    strategy = regularized_evolution(
        BITS, population=5, sample=5, replace=False, identity=0.0
    )
    rows = jax.vmap(BITS.sample)(jax.random.split(jax.random.key(1), 5))
    state = filled(strategy, rows, jnp.array([0.1, 0.5, 0.9, 0.3, 0.2]))
    children = proposed(strategy, state, 50)
    assert np.all(np.sum(children != np.asarray(rows[2]), axis=1) == 1)


def test_one_drawn_is_a_random_walk():
    strategy = regularized_evolution(BITS, population=4, sample=1, identity=0.0)
    rows = jnp.kron(jnp.eye(4, dtype=jnp.int32), jnp.ones((1, 3), jnp.int32))
    state = filled(strategy, rows, jnp.arange(4.0))
    children = proposed(strategy, state, 2000)
    parents = np.argmin(
        np.sum(children[:, None] != np.asarray(rows)[None], axis=2), axis=1
    )
    share = np.bincount(parents, minlength=4) / len(children)
    np.testing.assert_allclose(share, 0.25, atol=0.04)


def test_how_often_the_best_is_drawn():
    """1 - (1 - 1 / P)^S with replacement."""
    p, s, n = 10, 4, 20_000
    draw = partial(tournament.entrants, count=jnp.int32(p), capacity=p, size=s)
    drawn = jax.vmap(draw)(jax.random.split(jax.random.key(0), n))
    share = np.mean(np.any(np.asarray(drawn) == 3, axis=1))
    expected = 1 - (1 - 1 / p) ** s
    assert abs(share - expected) < 4 * np.sqrt(expected * (1 - expected) / n)


def test_a_child_differs_in_at_most_one_decision_of_an_equally_likely_group():
    strategy = regularized_evolution(CELL, population=2, sample=2, identity=0.2)
    state = filled(strategy, jnp.zeros((2, 3), jnp.int32), jnp.ones(2))
    children = proposed(strategy, state, 4000)
    changed = children != 0
    assert changed.sum(axis=1).max() == 1
    same, op = np.mean(~changed.any(axis=1)), np.mean(changed[:, 1])
    assert abs(same - 0.2) < 0.03 and abs(op - 0.4) < 0.03


def test_ageing_finds_truly_better_individuals_under_noise():
    """Without ageing, lucky individuals stay for ever; it shows in long searches."""
    spec = DecisionSpec(tuple(Decision(f"bit_{i}", ("0", "1")) for i in range(100)))

    def noisy(key, decisions):
        return ones(key, decisions) + 0.1 * jax.random.normal(key, decisions.shape[:-1])

    def true_mean(ageing):
        strategy = regularized_evolution(spec, population=20, sample=10, ageing=ageing)

        def one(key):
            state, _ = search(strategy, key, noisy, 1500)
            return jnp.mean(ones(None, state.decisions))

        keys = jax.random.split(jax.random.key(0), 16)
        return np.asarray(jax.jit(jax.vmap(one))(keys))

    gain = true_mean(True) - true_mean(False)
    assert np.mean(gain) > 3 * np.std(gain) / np.sqrt(len(gain))


def test_the_worst_drawn_dies_without_ageing():
    strategy = regularized_evolution(
        BITS, population=4, sample=4, replace=False, ageing=False
    )
    rows = jnp.eye(4, BITS.length, dtype=jnp.int32)
    state = filled(strategy, rows, jnp.array([0.4, 0.1, 0.3, 0.2]))
    _, state = jax.jit(strategy.propose, static_argnums=2)(jax.random.key(1), state, 1)
    state = filled(strategy, rows[:1], jnp.array([0.05]), state)
    np.testing.assert_allclose(state.fitness, [0.4, 0.05, 0.3, 0.2])


@pytest.mark.parametrize("replace", [True, False])
def test_nobody_descends_from_an_empty_slot(replace):
    """Where more are proposed at once than the population has scored."""
    spec = DecisionSpec(
        tuple(Decision(f"d{i}", tuple("abcd")) for i in range(3)),
        rule=Distinct(((0, 1, 2),)),
    )
    strategy = regularized_evolution(spec, population=4, sample=1, replace=replace)
    one = filled(strategy, jnp.array([[3, 1, 2]]), jnp.array([0.5]))
    for state in (strategy.init(jax.random.key(0)), one):
        for row in np.unique(proposed(strategy, state, 40), axis=0):
            spec.validate(row)


def test_without_ageing_nobody_dies_in_the_update_of_its_birth():
    strategy = regularized_evolution(BITS, population=6, sample=4, ageing=False)
    rows = jnp.eye(12, dtype=jnp.int32)
    state = filled(strategy, rows[:6], jnp.arange(6.0))
    for seed in range(20):
        state = state.replace(key=jax.random.key(seed))
        # Worse than all who were there, so that any tournament would take them.
        new = filled(strategy, rows[6:11], -jnp.arange(5.0), state)
        assert np.sum(np.asarray(new.born) >= 6) == 5


def test_invalid_trials_are_no_individuals():
    strategy = regularized_evolution(BITS, population=4, sample=2)
    rows = jnp.zeros((3, BITS.length), jnp.int32)
    reward = jnp.array([0.5, jnp.nan, 0.7])
    trial = Trial(Proposal(rows, jnp.zeros(3)), reward, jnp.array([True, True, False]))
    start = strategy.init(jax.random.key(0))
    state, _ = jax.jit(strategy.update)(jax.random.key(2), start, trial)
    assert int(state.count) == 1 and float(state.fitness[0]) == 0.5


@pytest.mark.parametrize(
    "options, message",
    [
        ({"population": 1}, "population is 1; it must be 2 or more"),
        (
            {"population": 5, "sample": 6},
            "sample is 6; it must lie in 1 to population=5",
        ),
        ({"identity": 1.0}, "identity is 1.0"),
    ],
)
def test_numbers_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        regularized_evolution(BITS, **options)
