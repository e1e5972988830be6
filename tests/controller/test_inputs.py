"""The policy of nodes that draw their inputs, on cells of DARTS that can be listed."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from child_models.spaces import SPACES
from controller.policies.inputs import decides_presence, input_policy
from controller.spec import Decision, DecisionSpec
from controller.strategies.differentiable.parsec import importance, parsec
from controller.types import Trial

SPEC = SPACES["darts"](classes=3, nodes=2, ops=("skip_connect", "sep_conv_3x3")).spec
NONE, HALF = SPEC.rule.none, SPEC.length // 2
POLICY = input_policy(SPEC)
CELLS = [  # edges 0>2 1>2 0>3 1>3 2>3
    row
    for row in itertools.product(range(3), repeat=HALF)
    if row[:2].count(NONE) == 0 and row[2:].count(NONE) == 1
]
SPACE = jnp.array([a + b for a, b in itertools.product(CELLS, repeat=2)])


def params_of(seed, scale=1.0):
    keys = jax.random.split(jax.random.key(seed))
    return {
        "inputs": scale * jax.random.normal(keys[0], (SPEC.length,)),
        "ops": scale * jax.random.normal(keys[1], (SPEC.length, SPEC.max_choices)),
    }


def probability(params, row):
    """Of an architecture, as two draws of distinct inputs, each with its op."""
    total, inputs = 1.0, np.exp(np.asarray(params["inputs"], np.float64))
    ops = np.exp(np.asarray(params["ops"], np.float64))
    ops[:, NONE] = 0
    for first, fan in ((0, 2), (2, 3), (5, 2), (7, 3)):
        edges = range(first, first + fan)
        pi = {e: inputs[e] / sum(inputs[e] for e in edges) for e in edges}
        pairs = list(itertools.permutations(edges, 2))
        taken = [e for e in edges if row[e] != NONE]
        chance = sum(pi[a] * pi[b] for a, b in pairs if {a, b} == set(taken))
        total *= chance / sum(pi[a] * pi[b] for a, b in pairs)
        for e in taken:
            total *= ops[e, row[e]] / ops[e].sum()
    return total


def test_a_node_draws_two_distinct_inputs_and_the_op_of_each():
    params = params_of(0)
    said = jax.jit(POLICY.evaluate)(params, SPACE)
    assert len(SPACE) == SPEC.size() == 48**2
    np.testing.assert_allclose(jnp.exp(said.log_prob).sum(), 1, rtol=1e-4)
    for i in range(0, len(SPACE), 97):
        expected = probability(params, SPACE[i].tolist())
        assert np.exp(said.log_prob[i]) == pytest.approx(expected, rel=1e-4)
    entropy = -jnp.sum(jnp.exp(said.log_prob) * said.log_prob)
    np.testing.assert_allclose(said.entropy, entropy, rtol=1e-4)


def test_draws_are_legal_and_as_likely_as_the_policy_says():
    params = params_of(1)
    draws, log_prob = jax.jit(POLICY.sample, static_argnums=2)(
        params, jax.random.key(0), 4000
    )
    assert np.asarray(jax.jit(jax.vmap(SPEC.is_legal))(draws)).all()
    said = jax.jit(POLICY.evaluate)(params, draws)
    np.testing.assert_allclose(log_prob, said.log_prob, rtol=1e-4)
    for e in (0, 3, 9):  # an edge's op, and how often it is present
        cells = SPACE[:, e]
        whole = jnp.exp(jax.jit(POLICY.evaluate)(params, SPACE).log_prob)
        for choice in range(3):
            p = float(jnp.sum(jnp.where(cells == choice, whole, 0)))
            found = float(jnp.mean(draws[:, e] == choice))
            assert abs(found - p) < 4 * np.sqrt(p * (1 - p) / 4000) + 1e-6


def test_equal_logits_draw_all_architectures_alike():
    flat = jax.tree.map(jnp.zeros_like, params_of(0))
    said = jax.jit(POLICY.evaluate)(flat, SPACE)
    np.testing.assert_allclose(said.log_prob, -np.log(len(SPACE)), rtol=1e-5)
    start = POLICY.init(jax.random.key(0))
    assert jax.tree.map(jnp.shape, start) == jax.tree.map(jnp.shape, flat)
    assert 0 < max(float(jnp.abs(leaf).max()) for leaf in start.values()) < 0.01


@pytest.mark.parametrize("seed", range(3))
def test_the_mode_is_the_most_probable_architecture(seed):
    params = params_of(seed, 2.0)
    log_prob = jax.jit(POLICY.evaluate)(params, SPACE).log_prob
    mode = jax.jit(POLICY.greedy)(params)
    np.testing.assert_array_equal(mode, SPACE[jnp.argmax(log_prob)])


def test_many_samples_give_the_gradient_of_the_evidence():
    """The samples are counted: equal ones have equal weights."""
    params = params_of(2, 0.5)
    tastes = jax.random.normal(jax.random.key(3), (SPEC.length, 3))
    log_likelihood = tastes[jnp.arange(SPEC.length), SPACE].sum(1)
    draw = jax.jit(POLICY.sample, static_argnums=2)
    draws, _ = draw(params, jax.random.key(4), 100_000)
    digits = 3 ** np.arange(SPEC.length)
    places = np.searchsorted(np.sort(SPACE @ digits), draws @ digits)
    order = np.argsort(SPACE @ digits)
    times = np.bincount(order[places], minlength=len(SPACE))
    seen = importance(log_likelihood + jnp.log(times), jnp.array(times > 0))

    def evidence(params):
        log_prob = POLICY.evaluate(params, SPACE).log_prob
        return jax.nn.logsumexp(log_prob + log_likelihood)

    def surrogate(params):
        return jnp.sum(seen * POLICY.evaluate(params, SPACE).log_prob)

    truth = jax.jit(jax.grad(evidence))(params)
    found = jax.jit(jax.grad(surrogate))(params)
    largest = max(float(jnp.abs(leaf).max()) for leaf in truth.values())
    for name, leaf in truth.items():
        np.testing.assert_allclose(found[name], leaf, atol=0.03 * largest)


def test_parsec_finds_the_cell_that_explains_the_data():
    strategy = parsec(SPEC, learning_rate=0.1, temperature=0.2)
    best = SPACE[1234]

    def step(state, key):
        propose_key, update_key = jax.random.split(key)
        proposal, state = strategy.propose(propose_key, state, 16)
        reward = -jnp.sum(proposal.decisions != best[None], axis=1) / 1.0
        return strategy.update(
            update_key, state, Trial(proposal, reward, jnp.ones(16, bool))
        )

    keys = jax.random.split(jax.random.key(1), 400)
    start = strategy.init(jax.random.key(0))
    state, metrics = jax.jit(lambda s: jax.lax.scan(step, s, keys))(start)
    assert metrics["entropy"][0] == pytest.approx(np.log(len(SPACE)), rel=1e-3)
    assert metrics["entropy"][-1] < 0.1
    found = strategy.best(jax.random.key(2), state, 1)
    np.testing.assert_array_equal(found, best[None])
    assert set(state.params) == {"inputs", "ops"}


def test_a_spec_without_such_a_rule_has_a_categorical_a_decision():
    plain = DecisionSpec((Decision("a", ("x", "y")),))
    assert decides_presence(SPEC) and not decides_presence(plain)
    assert parsec(plain).init(jax.random.key(0)).params.shape == (1, 2)
