"""What every strategy promises, on a bandit with a planted optimum."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from controller.spec import Decision, DecisionSpec, Distinct
from controller.strategies import STRATEGIES
from controller.types import Trial

# Two distinct inputs, an op and a skip: 6 * 3 * 2 = 36 architectures.
SPEC = DecisionSpec(
    (
        Decision("left", tuple("xyz"), "input", 0, (-3, -2, -1)),
        Decision("right", tuple("xyz"), "input", 0, (-3, -2, -1)),
        Decision("op", ("conv", "pool", "none"), "op", 0),
        Decision("skip", ("no", "yes"), "skip", 1, (0, 0)),
    ),
    rule=Distinct(((0, 1),)),
)
OPTIMUM = np.array([2, 0, 1, 1])
OPTIONS = {
    "asap": {"learning_rate": 0.1, "temperature": 1.0},
    "darts": {"learning_rate": 0.02},
    "p_darts": {"drops": (1,), "stage_rounds": 90, "learning_rate": 0.02},
    "parsec": {"learning_rate": 0.05, "temperature": 0.1},
    "pc_darts": {"learning_rate": 0.05},
    "proxylessnas": {"learning_rate": 0.05},
    "genetic": {"population": 64, "memory": 48},
    "reinforce": {"learning_rate": 0.02, "policy": {"hidden": 8}},
    "ppo": {"learning_rate": 0.01, "policy": {"hidden": 8}},
    "progressive": {"surrogate": "linear", "first": 32, "beam": 8, "capacity": 64},
    "regularized_evolution": {"population": 16, "sample": 4},
}
LEARNING = ("parsec", "reinforce", "ppo")
RELAXED = ("asap", "darts", "p_darts", "pc_darts", "proxylessnas")
SEEDS, SAMPLES, UPDATES = 2, 8, 60


class Run(NamedTuple):
    """What two seeds of a strategy did."""

    traces: int  # of the compiled search
    start: Any  # state
    states: list  # after each call
    metrics: list
    first: Any  # proposal of the start, [SEEDS, 100]
    again: Any  # the same, from the same key
    last: Any  # proposal of the end
    best_first: np.ndarray  # int32[SEEDS, 50, T], at the start
    best_last: np.ndarray  # at the end


# Those that search decisions; the one of graphs has tests of its own.
NAMES = [name for name in STRATEGIES if name != "large_scale_evolution"]


@pytest.fixture(scope="module", params=NAMES)
def run(request):
    strategy = STRATEGIES[request.param](SPEC, **OPTIONS.get(request.param, {}))
    samples, traces = 1 if strategy.relaxed else SAMPLES, []
    slope = jax.tree.map(jnp.negative, SPEC.one_hot(OPTIMUM))

    def update(state, key):
        propose_key, update_key = jax.random.split(key)
        proposal, state = strategy.propose(propose_key, state, samples)
        reward = jnp.mean(proposal.decisions == OPTIMUM[None], axis=1)
        gradient = slope if strategy.relaxed else None
        trial = Trial(proposal, reward, jnp.ones(samples, bool), gradient=gradient)
        return strategy.update(update_key, state, trial)

    @jax.jit
    def search(key, states):
        traces.append(key)

        def one(key, state):
            return jax.lax.scan(update, state, jax.random.split(key, UPDATES))

        return jax.vmap(one)(jax.random.split(key, SEEDS), states)

    @jax.jit
    def report(key, states):
        def one(state):
            proposal, _ = strategy.propose(key, state, 100)
            return proposal, strategy.best(key, state, 50)

        return jax.vmap(one)(states)

    keys = jax.random.split(jax.random.key(0), SEEDS)
    start = states = jax.jit(jax.vmap(strategy.init))(keys)
    kept, metrics = [], []
    for call in range(3):
        states, row = search(jax.random.key(call), states)
        kept.append(states)
        metrics.append(row)
    first, best_first = report(jax.random.key(5), start)
    again, _ = report(jax.random.key(5), start)
    last, best_last = report(jax.random.key(5), states)
    traces = len(traces)
    bests = (np.asarray(best_first), np.asarray(best_last))
    return Run(traces, start, kept, metrics, first, again, last, *bests)


def shapes(tree):
    def of(leaf):
        return leaf.shape, leaf.dtype, getattr(leaf, "weak_type", False)  # keys: none

    return jax.tree.map(of, tree)


def legal(rows):
    """The distinct rows; raises where one is not legal."""
    return {SPEC.validate(row) for row in np.unique(np.asarray(rows), axis=0)}


def test_proposals_are_legal_and_have_their_shapes(run):
    for proposal in (run.first, run.last):
        decisions = proposal.decisions
        assert decisions.shape == (SEEDS, 100, 4) and decisions.dtype == jnp.int32
        assert proposal.log_prob.shape == (SEEDS, 100)
        assert proposal.log_prob.dtype == jnp.float32
        assert legal(decisions.reshape(-1, 4))


def test_the_same_key_gives_the_same_proposals(run):
    jax.tree.map(np.testing.assert_array_equal, run.first, run.again)


def test_the_state_keeps_its_tree_and_dtypes(run):
    for states in run.states:
        assert shapes(states) == shapes(run.start)
        leaves = [x for x in jax.tree.leaves(states) if x.dtype == jnp.float32]
        assert not any(np.isnan(leaf).any() for leaf in leaves)


def test_no_call_compiles_again(run):
    assert run.traces == 1


def test_metrics_are_float32_and_there(run):
    for metrics in run.metrics:
        assert metrics
        assert shapes(metrics) == shapes(run.metrics[0])
        for values in metrics.values():
            assert values.dtype == jnp.float32 and values.shape == (SEEDS, UPDATES)
            assert np.isfinite(values).all()


def test_the_best_are_legal_and_as_many_as_wanted(run):
    for best in (run.best_first, run.best_last):
        assert best.shape == (SEEDS, 50, 4) and best.dtype == np.int32
        assert legal(best.reshape(-1, 4))


@pytest.mark.parametrize(
    "run", [name for name in NAMES if name not in RELAXED], indirect=True
)
def test_the_first_proposals_differ(run):
    assert len(legal(run.first.decisions.reshape(-1, 4))) > 20


@pytest.mark.parametrize("run", LEARNING, indirect=True)
def test_a_policy_tells_how_it_learns(run):
    for metrics in run.metrics:
        assert set(metrics) >= {"baseline", "entropy", "advantage", "loss"}


@pytest.mark.parametrize("run", LEARNING, indirect=True)
def test_it_finds_the_planted_optimum(run):
    hits = np.all(np.asarray(run.last.decisions) == OPTIMUM, axis=2)
    assert hits.any(axis=1).all()
    probability = np.exp(np.where(hits, run.last.log_prob, -np.inf)).max(axis=1)
    assert np.all(probability > 0.9)


@pytest.mark.parametrize("run", LEARNING, indirect=True)
def test_it_earns_more_than_at_random(run):
    def earned(proposal):
        return np.mean(np.asarray(proposal.decisions) == OPTIMUM, axis=(1, 2))

    # Uniform samples earn (1/3 + 1/3 + 1/3 + 1/2) / 4 = 0.375 on average.
    assert np.all(earned(run.first) < 0.5)
    assert np.all(earned(run.last) > 0.9)


@pytest.mark.parametrize("run", LEARNING, indirect=True)
def test_the_best_are_distinct_while_they_last(run):
    for rows in (*run.best_first, *run.best_last):
        distinct = len(np.unique(rows, axis=0))
        assert len(np.unique(rows[:distinct], axis=0)) == distinct
        np.testing.assert_array_equal(rows[distinct:], rows[: 50 - distinct])
    for rows in run.best_first:
        assert len(np.unique(rows, axis=0)) == 36  # the whole space
    assert np.all(run.best_last[:, 0] == OPTIMUM)


@pytest.mark.parametrize(
    "run", [name for name in NAMES if name != "random_search"], indirect=True
)
def test_the_first_of_the_best_is_the_planted_optimum(run):
    assert np.all(run.best_last[:, 0] == OPTIMUM)


@pytest.mark.parametrize("run", ["random_search"], indirect=True)
def test_random_search_stays_uniform(run):
    entropy = np.log(3) + np.log(2) + np.log(3) + np.log(2)
    for metrics in run.metrics:
        np.testing.assert_allclose(metrics["entropy"], entropy, rtol=1e-5)
        assert not np.any(metrics["baseline"])
    assert len(legal(run.last.decisions.reshape(-1, 4))) > 20
