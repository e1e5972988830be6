"""Operators of the genetic algorithm: frequencies, what is kept, legality."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from controller.evolution import (
    crossover,
    mutate_each,
    roulette,
    roulette_probabilities,
    stage_of,
    uniform_population,
)
from controller.spec import Decision, DecisionSpec, Distinct


def bits(*stages):
    """A spec of stages with so many bits."""
    return DecisionSpec(
        tuple(
            Decision(f"stage_{s}/{i}", ("no", "yes"))
            for s, count in enumerate(stages)
            for i in range(count)
        )
    )


SPEC = bits(3, 10)
DRAWS = 20_000


def within_three_sigma(share, probability, draws):
    """Whether a share of so many draws agrees with a probability."""
    sigma = np.sqrt(np.asarray(probability) * (1 - np.asarray(probability)) / draws)
    return np.all(np.abs(np.asarray(share) - probability) <= 3 * sigma)


# ---- stages -------------------------------------------------------------------------


def test_a_stage_is_what_stands_before_the_last_slash():
    names = ["a/x/0", "a/x/1", "alone", "a/y/0", "single"]
    spec = DecisionSpec(tuple(Decision(name, ("0", "1")) for name in names))
    assert stage_of(spec).tolist() == [0, 0, 1, 2, 3]
    assert stage_of(SPEC).tolist() == [0] * 3 + [1] * 10


# ---- the first generation -----------------------------------------------------------


def test_a_uniform_population_has_fair_bits(quick_jit):
    draw = quick_jit(lambda key: uniform_population(SPEC, key, 2000))
    rows = draw(jax.random.key(0))
    assert rows.shape == (2000, 13) and rows.dtype == jnp.int32
    assert within_three_sigma(rows.mean(), 0.5, rows.size)
    assert len(np.unique(np.asarray(rows), axis=0)) > 1700


# ---- selection ----------------------------------------------------------------------


def test_roulette_follows_the_excess_over_the_worst():
    fitness, valid = jnp.array([0.5, 0.2, 0.6, 0.3, 0.2]), jnp.ones(5, bool)
    expected = np.array([0.3, 0, 0.4, 0.1, 0]) / 0.8
    probabilities = roulette_probabilities(fitness, valid)
    np.testing.assert_allclose(probabilities, expected, rtol=1e-5)
    chosen = roulette(jax.random.key(0), fitness, valid, DRAWS)
    share = np.bincount(chosen, minlength=5) / DRAWS
    assert share[1] == share[4] == 0  # the worst
    assert within_three_sigma(share, expected, DRAWS)


@pytest.mark.parametrize(
    ("fitness", "valid", "expected"),
    [
        ([0.7, 0.7, 0.7, 0.7], [1, 1, 1, 1], [0.25] * 4),
        ([0.7, np.nan, 0.7, -np.inf], [1, 0, 1, 0], [0.5, 0, 0.5, 0]),
        ([0.1, np.nan, 0.4, 9.0], [1, 0, 1, 0], [0, 0, 1, 0]),
        ([np.nan, 1.0, -np.inf, 2.0], [0, 0, 0, 0], [0.25] * 4),
        ([-3.0, -1.0, -2.0, -3.0], [1, 1, 1, 1], [0, 2 / 3, 1 / 3, 0]),
    ],
)
def test_roulette_of_equal_and_invalid_individuals(fitness, valid, expected):
    result = roulette_probabilities(jnp.array(fitness), jnp.array(valid, bool))
    np.testing.assert_allclose(result, expected, rtol=1e-6)


# ---- crossover ----------------------------------------------------------------------


def segments(rows, stage):
    """The sorted substrings of each stage."""
    return [
        sorted(tuple(row[stage == s]) for row in np.asarray(rows))
        for s in range(stage.max() + 1)
    ]


@pytest.mark.parametrize("size", [8, 7])
def test_crossover_keeps_the_stages_of_each_pair(quick_jit, size):
    stage = stage_of(SPEC)
    rows = jax.random.bernoulli(jax.random.key(1), 0.5, (size, 13)).astype(jnp.int32)
    cross = quick_jit(lambda key, rows: crossover(key, rows, stage, 1.0, 0.5))
    children, crossed = cross(jax.random.key(2), rows)
    assert np.any(children != rows) and children.dtype == rows.dtype
    for first in range(0, size - 1, 2):
        pair = slice(first, first + 2)
        assert segments(children[pair], stage) == segments(rows[pair], stage)
    assert crossed.tolist() == [True] * (size - size % 2) + [False] * (size % 2)
    np.testing.assert_array_equal(children[2 * (size // 2) :], rows[2 * (size // 2) :])


def test_crossover_takes_pairs_and_stages_with_their_probabilities():
    stage, pairs = stage_of(SPEC), 4000
    rows = jnp.tile(jnp.array([[0] * 13, [1] * 13]), (pairs, 1))
    children, crossed = crossover(jax.random.key(3), rows, stage, 0.4, 0.3)
    np.testing.assert_array_equal(crossed[::2], crossed[1::2])
    crossed, taken = np.asarray(crossed[::2]), np.asarray(children[::2])
    assert within_three_sigma(crossed.mean(), 0.4, pairs)
    assert not taken[~crossed].any()
    for s in (0, 1):
        part = taken[:, stage == s]
        assert np.all(part == part[:, :1])  # a stage is never split
        assert within_three_sigma(part[:, 0].mean(), 0.4 * 0.3, pairs)


# ---- mutation -----------------------------------------------------------------------


def test_mutation_flips_each_bit_with_its_probability(quick_jit):
    n, rows = 4000, jnp.zeros((4000, 13), jnp.int32).at[:, 5].set(1)
    mutate = quick_jit(functools.partial(mutate_each, SPEC, jax.random.key(4)))
    flipped = np.asarray(mutate(rows, jnp.full(n, 0.1)) != rows)
    assert within_three_sigma(flipped.mean(0), 0.1, n)
    np.testing.assert_array_equal(mutate(rows, jnp.zeros(n)), rows)
    np.testing.assert_array_equal(mutate(rows, jnp.ones(n)), 1 - rows)


def test_mutation_draws_other_choices_and_stays_legal(quick_jit):
    spec = DecisionSpec(
        (
            *(Decision(f"level_{i}", tuple("abcd")) for i in range(3)),
            Decision("op", ("x", "y", "z")),
        ),
        rule=Distinct(((0, 1, 2),)),
    )
    n = 600
    draw = quick_jit(lambda key: uniform_population(spec, key, n))
    rows = draw(jax.random.key(5))
    broken = rows.at[::2, 1].set(rows[::2, 0])  # as a crossover may leave them
    mutate = quick_jit(functools.partial(mutate_each, spec, jax.random.key(6)))
    legal = quick_jit(jax.vmap(spec.is_legal))
    assert not legal(broken)[::2].any()
    for probability in (0.0, 0.5, 1.0):
        new = mutate(broken, jnp.full(n, probability))
        assert legal(new).all()
    assert np.all(np.asarray(new[:, 3] != rows[:, 3]))
    kept = mutate(broken, jnp.zeros(n))
    np.testing.assert_array_equal(kept[1::2], rows[1::2])
