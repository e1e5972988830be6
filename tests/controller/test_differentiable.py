"""Relaxations on hand-made gradients: what each paper's rules promise, in numbers."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from child_models.spaces import SPACES
from controller.spec import Decision, DecisionSpec
from controller.strategies import STRATEGIES
from controller.strategies.differentiable.asap import asap, heavy
from controller.strategies.differentiable.core import (
    row_entropy,
    softmax_of_live,
)
from controller.strategies.differentiable.darts import darts
from controller.strategies.differentiable.named import (
    cost_table,
    own_choices,
)
from controller.strategies.differentiable.p_darts import p_darts, strongest
from controller.strategies.differentiable.pc_darts import edge_shares, pc_darts
from controller.strategies.differentiable.proxylessnas import (
    draw_paths,
    proxylessnas,
    rescaled,
)
from controller.strategies.differentiable.skip_cap import capped_derivation
from controller.types import Trial

OPS = ("none", "skip_connect", "conv", "pool")
# Three nodes: one, two and three edges; and an edge of fewer ops, of no node.
SPEC = DecisionSpec(
    (
        *(
            Decision(f"{source}>{target}", OPS, "normal", node=target)
            for target in (1, 2, 3)
            for source in range(target)
        ),
        Decision("alone", OPS[:3], "normal"),
    )
)
EDGES = 6
RELAXED = ("asap", "darts", "p_darts", "pc_darts", "proxylessnas")
OPTIONS = {"p_darts": {"drops": (1, 1)}}


def by_group(rows):
    return {"normal": jnp.asarray(rows, jnp.float32)}


def padded(edges, alone=(0.0, 0.0, 0.0)):
    """Rows of all edges, and of the one with three choices."""
    return by_group([*edges, (*alone, 0.0)])


class Driver:
    """A strategy, compiled, on the same gradient at every step."""

    def __init__(self, strategy):
        self.strategy = strategy

        @functools.partial(jax.jit, static_argnums=3)
        def step(key, state, gradient, n=1):
            propose_key, update_key = jax.random.split(key)
            proposal, state = strategy.propose(propose_key, state, n)
            trial = Trial(proposal, jnp.zeros(n), jnp.ones(n, bool), gradient=gradient)
            return *strategy.update(update_key, state, trial), proposal

        self._step = step
        self.init = jax.jit(strategy.init)

    def run(self, gradient, steps, seed=0):
        """States, metrics and proposals of all steps; the first state before them."""
        state = self.init(jax.random.key(seed))
        states, metrics, proposals = [state], [], []
        for i in range(steps):
            key = jax.random.fold_in(jax.random.key(seed + 1), i)
            state, row, proposal = self._step(key, state, gradient)
            states.append(state)
            metrics.append(row)
            proposals.append(proposal)
        return states, metrics, proposals


ZERO = padded([[0.0] * 4] * EDGES)


# ---- what all have in common --------------------------------------------------------


def test_weights_are_a_softmax_of_the_live():
    live = padded([[1, 1, 0, 1]] * EDGES, (1, 1, 1))
    live = jax.tree.map(lambda x: x > 0, live)
    weights = softmax_of_live(padded([[1.0, 2.0, 9.0, 3.0]] * EDGES), live)["normal"]
    three = np.exp([1, 2, 3]) / np.exp([1, 2, 3]).sum()
    np.testing.assert_allclose(weights[0], [three[0], three[1], 0, three[2]], rtol=1e-5)
    np.testing.assert_allclose(weights[-1], [1 / 3, 1 / 3, 1 / 3, 0], rtol=1e-5)


def test_large_one_hot_logits_are_one_op():
    weights = softmax_of_live(
        padded([[0.0, 60.0, 0.0, 0.0]] * EDGES), own_choices(SPEC)
    )
    np.testing.assert_allclose(weights["normal"][0], [0, 1, 0, 0], atol=1e-6)


def test_entropy_does_not_depend_on_the_scale_of_a_row():
    rows = by_group([[0.25] * 4, [0.05] * 4, [0.0, 0.7, 0.0, 0.0], [0.0] * 4])
    np.testing.assert_allclose(
        row_entropy(rows)["normal"], [math.log(4), math.log(4), 0, 0], atol=1e-6
    )


@pytest.mark.parametrize("name", RELAXED)
def test_it_goes_down_a_constant_gradient(name):
    options = {"learning_rate": 0.1} | OPTIONS.get(name, {})
    if name == "asap":
        options["temperature"] = 1.0
    if name == "p_darts":
        options |= {"rest_rounds": 0, "stage_rounds": 100}
    driver = Driver(STRATEGIES[name](SPEC, **options))
    slope = padded([[0.0, 0.0, -1.0, 0.0]] * EDGES, (0.0, -1.0, 0.0))
    states, metrics, _ = driver.run(slope, 60)
    assert states[-1].genotype.tolist() == [2] * EDGES + [1]
    (best,) = driver.strategy.best(jax.random.key(0), states[-1], 1)
    np.testing.assert_array_equal(best, states[-1].genotype)
    assert metrics[-1]["skips"] == 1
    assert metrics[-1]["alpha_entropy"] < metrics[0]["alpha_entropy"]
    assert metrics[-1]["skip_share"] == pytest.approx(1 / 7)
    changes = sum(float(row["changes"]) for row in metrics)
    assert changes >= np.sum(states[0].genotype != states[-1].genotype) > 0


@pytest.mark.parametrize("name", RELAXED)
def test_a_reward_that_is_not_finite_changes_nothing(name):
    strategy = STRATEGIES[name](SPEC, **OPTIONS.get(name, {}))
    state = strategy.init(jax.random.key(0))
    proposal, _ = strategy.propose(jax.random.key(1), state, 1)
    slope = jax.tree.map(lambda x: x + jnp.nan, ZERO)
    trial = Trial(proposal, jnp.array([jnp.nan]), jnp.array([True]), gradient=slope)
    new, _ = strategy.update(jax.random.key(2), state, trial)
    jax.tree.map(np.testing.assert_array_equal, new, state)


def test_darts_pulls_the_gradient_back_through_the_softmax():
    """Adam's first step is the learning rate times the sign of that gradient."""
    driver = Driver(darts(SPEC, learning_rate=0.01, weight_decay=0.0))
    slope = jax.random.normal(jax.random.key(5), (7, 4))
    states, *_ = driver.run({"normal": slope}, 1)
    p = softmax_of_live(states[0].params, own_choices(SPEC))["normal"]
    alpha = p * (slope - jnp.sum(p * slope, axis=1, keepdims=True))
    moved = states[1].params["normal"] - states[0].params["normal"]
    np.testing.assert_allclose(moved[:6], -0.01 * np.sign(alpha[:6]), rtol=1e-2)
    np.testing.assert_allclose(alpha.sum(1), 0, atol=1e-6)
    assert moved[6, 3] == 0  # no choice


def test_candidates_are_distinct_and_begin_with_the_derived():
    strategy = darts(SPEC)
    state = strategy.init(jax.random.key(0))
    best = np.asarray(strategy.best(jax.random.key(1), state, 20))
    np.testing.assert_array_equal(best[0], state.genotype)
    assert len(np.unique(best, axis=0)) == 20
    assert all(SPEC.validate(row) for row in best)


# ---- PC-DARTS -----------------------------------------------------------------------


def test_edges_share_each_node():
    beta = jnp.array([0.3, 1.0, 2.0, -1.0, 0.0, 0.5, 7.0])
    shares = np.asarray(edge_shares(SPEC, {"normal": beta})["normal"])
    for members in ([0], [1, 2], [3, 4, 5], [6]):
        expected = np.exp(beta[np.array(members)])
        np.testing.assert_allclose(
            shares[members], expected / expected.sum(), rtol=1e-5
        )


def test_edges_share_each_node_of_both_cells_of_darts():
    spec = SPACES["darts"](classes=10).spec
    beta = jax.random.normal(jax.random.key(2), (2, 14))
    shares = edge_shares(spec, {"normal": beta[0], "reduce": beta[1]})
    for row, of_cell in zip(beta, shares.values(), strict=True):
        for first, fan in ((0, 2), (2, 3), (5, 4), (9, 5)):
            node = of_cell[first : first + fan]
            assert node.sum() == pytest.approx(1, abs=1e-6)
            np.testing.assert_allclose(
                node, jax.nn.softmax(row[first : first + fan]), rtol=1e-5
            )


def test_equal_edges_are_darts_over_their_number():
    strategy = pc_darts(SPEC, init_scale=0.0)
    state = strategy.init(jax.random.key(0))
    proposal, _ = strategy.propose(jax.random.key(1), state, 1)
    uniform = softmax_of_live(ZERO, own_choices(SPEC))["normal"]
    fans = np.array([1, 2, 2, 3, 3, 3, 1])
    np.testing.assert_allclose(
        proposal.relaxed["weights"]["normal"], uniform / fans[:, None], rtol=1e-5
    )


def test_pc_darts_learns_edges():
    driver = Driver(pc_darts(SPEC, learning_rate=0.1))
    slope = padded([[0.0] * 4, [0.0] * 4, [-1.0] * 4, *[[0.0] * 4] * 3])
    states, *_ = driver.run(slope, 30)
    shares = edge_shares(SPEC, states[-1].params["beta"])["normal"]
    assert shares[2] > 0.9 and shares[1] < 0.1


# ---- ASAP ---------------------------------------------------------------------------


def test_asap_prunes_two_ops_when_the_closed_form_says():
    """Of two ops with gap D, one goes when 1 / (1 + exp(D / T)) < 0.4 / 2."""
    decay, gap, per_round = 0.9, 0.7, 2
    spec = DecisionSpec((Decision("edge", ("conv", "pool")),))
    driver = Driver(
        asap(
            spec,
            temperature=1.6,
            decay=decay,
            steps_per_round=per_round,
            weight_decay=0.0,
            init_scale=0.0,
        )
    )
    state = driver.init(jax.random.key(0)).replace(params={"op": jnp.array([[gap, 0]])})
    zero, pruned = {"op": jnp.zeros((1, 2))}, None
    for i in range(40):
        state, *_ = driver._step(jax.random.key(i), state, zero)
        if pruned is None and not state.live["op"].all():
            pruned = i // per_round
            assert i % per_round == per_round - 1  # at the end of the round
    first = math.ceil(math.log(gap / math.log(4) / 1.6) / math.log(decay))
    assert pruned == first > math.ceil(math.log(1 / 1.6) / math.log(decay))
    np.testing.assert_array_equal(state.live["op"], [[True, False]])
    proposal, _ = driver.strategy.propose(jax.random.key(0), state, 1)
    np.testing.assert_array_equal(proposal.relaxed["weights"]["op"], [[1, 0]])


def test_asap_has_grace_and_then_only_loses_ops_and_never_the_last():
    """1.6 * 0.95^10 is the first temperature of at most 1."""
    driver = Driver(asap(SPEC, learning_rate=0.2, weight_decay=0.0))
    slope = jax.random.normal(jax.random.key(3), (7, 4))
    states, _, proposals = driver.run({"normal": slope}, 60)
    for state in states[1:11]:
        np.testing.assert_array_equal(
            state.params["normal"], states[0].params["normal"]
        )
    assert np.any(states[11].params["normal"] != states[0].params["normal"])
    alive = [np.asarray(state.live["normal"]) for state in states]
    for i, (before, after) in enumerate(zip(alive, alive[1:], strict=False)):
        assert not np.any(after & ~before) and after.any(axis=1).all()
        logits = np.where(before, states[i + 1].params["normal"], -np.inf)
        assert after[np.arange(7), logits.argmax(axis=1)].all()  # the heaviest stays
        # The supernet runs what is alive: each op that goes makes a step cheaper.
        np.testing.assert_array_equal(proposals[i].relaxed["live"]["normal"], before)
    assert np.all(alive[10] == alive[0]) and np.all(alive[-1].sum(axis=1) == 1)
    assert len({rows.sum() for rows in alive}) > 5


def test_asap_never_prunes_the_heaviest_op():
    weights = np.random.default_rng(0).dirichlet(np.full(8, 0.3), 500)
    weights = np.vstack([weights, np.full((1, 8), 1 / 8)]).astype(np.float32)
    live = np.ones_like(weights, bool)
    kept = np.asarray(heavy({"op": weights}, {"op": live}, 0.4)["op"])
    assert kept[np.arange(501), weights.argmax(axis=1)].all()
    np.testing.assert_array_equal(kept, weights >= 0.4 / 8)
    assert kept[-1].all() and np.any(kept.sum(axis=1) == 1)


def test_asap_derives_what_it_has_left_in_the_space_of_darts():
    """Where an edge could end as "none", an op that was pruned would be derived."""
    spec = SPACES["darts"](classes=10, nodes=2).spec
    strategy = asap(spec, temperature=1.0, decay=0.1, init_scale=0.0)
    state = strategy.init(jax.random.key(0))
    proposal, state = strategy.propose(jax.random.key(1), state, 1)
    assert not any(rows[:, spec.rule.none].any() for rows in state.live.values())
    toward_none = jax.tree.map(
        lambda w: jnp.zeros_like(w).at[:, spec.rule.none].set(-1.0).at[:, 4].set(-0.5),
        proposal.relaxed["weights"],
    )
    trial = Trial(proposal, jnp.zeros(1), jnp.ones(1, bool), gradient=toward_none)
    for step in range(3):
        state, _ = strategy.update(jax.random.key(step), state, trial)
    assert set(np.asarray(state.genotype).tolist()) == {spec.rule.none, 4}


def test_asap_is_uniform_when_hot_and_one_op_when_cold():
    logits, live = padded([[0.5, 0.1, 0.3, 0.2]] * EDGES), own_choices(SPEC)
    hot, cold = (softmax_of_live(logits, live, t)["normal"][0] for t in (1e6, 1e-3))
    np.testing.assert_allclose(hot, 0.25, atol=1e-6)
    np.testing.assert_allclose(cold, [1, 0, 0, 0], atol=1e-6)


# ---- P-DARTS ------------------------------------------------------------------------


def test_p_darts_keeps_fewer_ops_in_each_stage_nested():
    spec = DecisionSpec(
        tuple(Decision(f"e{i}", tuple("abcdefgh"), node=i) for i in range(14))
    )
    driver = Driver(p_darts(spec, stage_rounds=4, rest_rounds=2, learning_rate=0.1))
    order = jnp.tile(jnp.arange(8), (14, 1))
    order = jax.random.permutation(jax.random.key(3), order, axis=1, independent=True)
    slope = {"op": jnp.where(order < 5, -1.0, 1.0)}
    states, *_ = driver.run(slope, 14)
    alive = [np.asarray(state.live["op"]) for state in states]
    counts = [int(row.sum(1)[0]) for row in alive]
    assert counts == [8] * 4 + [5] * 4 + [3] * 7
    for before, after in zip(alive, alive[1:], strict=False):
        assert np.all(after.sum(1) == after.sum(1)[0]) and not np.any(after & ~before)
    np.testing.assert_array_equal(alive[4], order < 5)  # what the gradient was for
    # The logits rest for two rounds, and begin anew with a stage.
    rests = [
        np.array_equal(a.params["op"], b.params["op"])
        for a, b in zip(states, states[1:], strict=False)
    ]
    assert rests == [True, True, False, False] * 3 + [True, True]
    assert np.abs(states[4].params["op"]).max() < 0.01


def test_p_darts_goes_from_8_ops_an_edge_to_5_to_3_to_the_one_that_is_derived():
    """Where "none" is the heaviest to the end, the heaviest of the others is taken."""
    spec = SPACES["darts"](classes=10).spec
    options = {"stage_rounds": 4, "rest_rounds": 1, "learning_rate": 0.1}
    driver = Driver(p_darts(spec, max_skips=None, **options))
    slope = jnp.tile(jnp.linspace(0.2, -1.0, 8).at[0].set(-1.0), (14, 1))
    states, *_ = driver.run({"normal": slope, "reduce": slope}, 12)
    alive = [np.asarray(state.live["normal"]) for state in states]
    assert [rows.sum(axis=1).tolist() for rows in alive] == [
        [count] * 14 for count in [8] * 4 + [5] * 4 + [3] * 5
    ]
    assert alive[-1][:, [0, 6, 7]].all()
    heavy_none = jnp.tile(jnp.arange(8.0).at[0].set(20.0), (14, 1))
    logits = {"normal": heavy_none, "reduce": heavy_none}
    last, *_ = driver._step(
        jax.random.key(0),
        states[-1].replace(params=logits),
        jax.tree.map(jnp.zeros_like, logits),
    )
    derived = np.asarray(last.genotype)
    assert np.sum(derived == 7) == 16 and spec.is_legal(derived)


def test_a_stage_of_its_own_begins_with_what_is_kept():
    names = [decision.name for decision in SPEC.decisions]
    kept = {name: ["skip_connect", "conv"] for name in names}
    options = {"kept": kept, "stage_rounds": 2, "rest_rounds": 0, "drops": (2, 1, 1)}
    for stage, left in ((1, 1), (3, 2)):
        driver = Driver(p_darts(SPEC, stage=stage, **options))
        states, *_ = driver.run(ZERO, 5)
        for state, count in zip(states, [2, 2, left, left, left], strict=False):
            live = np.asarray(state.live["normal"])
            assert np.all(live.sum(1) == count) and not np.any(live[:, [0, 3]])


def test_strongest_keeps_one_and_of_equal_ops_the_first():
    live = jax.tree.map(lambda x: x > 0, by_group([[1, 1, 1, 1], [0, 1, 0, 1]]))
    weights = by_group([[0.1, 0.4, 0.4, 0.1], [0.0, 0.5, 0.0, 0.5]])
    kept = strongest(weights, live, 3)["normal"]
    assert kept.tolist() == [[False, True, False, False]] * 2


SKIP_HEAVY = padded(
    [[0.9, 0.05 + 0.01 * i, 0.04, 0.01] for i in range(EDGES)], (0.5, 0.4, 0.1)
)


@pytest.mark.parametrize("most", range(9))
def test_p_darts_caps_skips(most):
    derived = np.asarray(capped_derivation(SPEC, SKIP_HEAVY, most))
    assert np.sum(derived == 1) == min(most, 7)
    assert not np.any(derived == 0)  # "none" never
    # The weakest skips go first: the edge alone has the strongest one.
    expected = [2] * (7 - min(most, 7)) + [1] * min(most, 7)
    assert derived.tolist() == expected


def test_the_cap_may_hold_for_one_group_and_for_none():
    spec = DecisionSpec(
        tuple(
            Decision(f"{g}/{i}", OPS, g) for g in ("normal", "reduce") for i in (0, 1)
        )
    )
    weights = {g: jnp.array([[0.1, 0.6, 0.3, 0.0]] * 2) for g in ("normal", "reduce")}
    assert capped_derivation(spec, weights, 0, "normal").tolist() == [2, 2, 1, 1]
    assert capped_derivation(spec, weights, None).tolist() == [1] * 4
    assert capped_derivation(spec, weights, 1).tolist() != [1] * 4


@pytest.mark.parametrize("most", range(9))
def test_of_equal_skips_one_at_a_time_is_forbidden(most):
    spec = SPACES["darts"](classes=10).spec
    row = [0.04, 0.05, 0.05, 0.5, 0.2, 0.06, 0.05, 0.05]  # skip_connect, then sep 3x3
    weights = {cell: jnp.array([row] * 14) for cell in ("normal", "reduce")}
    derived = np.asarray(capped_derivation(spec, weights, most, "normal"))
    assert np.sum(derived[:14] == 3) == most and np.sum(derived[14:] == 3) == 8
    assert spec.is_legal(derived)


@pytest.fixture(scope="module")
def cap():
    """``(weights, most)`` -> derived in DARTS's space, compiled once for all caps."""
    spec = SPACES["darts"](classes=10).spec
    return spec, jax.jit(lambda w, most: capped_derivation(spec, w, most, "normal"))


def published_cap(rows, most):
    """The authors' loop in plain Python: the decisions of a cell."""
    rows = rows.copy()
    rows[:, 0] = 0
    while True:
        decisions, first = np.zeros(14, int), 0
        for fan in (2, 3, 4, 5):
            strength = rows[first : first + fan].max(axis=1)
            for e in first + np.argsort(-strength)[:2]:
                decisions[e] = rows[e].argmax()
            first += fan
        skips = np.flatnonzero(decisions == 3)
        if len(skips) <= most:
            return decisions
        rows[skips[rows[skips, 3].argmin()], 3] = 0


@pytest.mark.parametrize("seed", range(3))
def test_each_cap_leaves_so_many_skips_and_two_edges_a_node(cap, seed):
    spec, derive = cap
    rows = np.random.default_rng(seed).dirichlet([1, 1, 1, 4, 1, 1, 1, 1], (2, 14))
    weights = {"normal": jnp.array(rows[0]), "reduce": jnp.array(rows[1])}
    counts = []
    for most in range(8, -1, -1):
        derived = np.asarray(derive(weights, most))
        np.testing.assert_array_equal(derived[:14], published_cap(rows[0], most))
        np.testing.assert_array_equal(derived[14:], published_cap(rows[1], 8))
        assert spec.is_legal(derived)
        counts.append(int(np.sum(derived[:14] == 3)))
        assert counts[-1] <= most
    assert counts[0] > counts[-1] == 0


def test_what_was_dropped_is_not_derived_for_a_forbidden_op():
    rows = [[0.6, 0.4, 0.0, 0.0]] * EDGES
    derived = capped_derivation(SPEC, padded(rows, (0.0, 0.5, 0.5)), 0)
    assert np.all(np.asarray(derived[:EDGES]) < 2)  # forbidden, but trained


# ---- ProxylessNAS -------------------------------------------------------------------


def test_two_paths_are_drawn_and_one_is_active():
    logits, live = jnp.log(jnp.array([[0.5, 0.3, 0.2, 1.0]])), jnp.array([[1, 1, 1, 0]])
    keys = jax.random.split(jax.random.key(0), 4000)
    gates, drawn = jax.vmap(draw_paths, (0, None, None, None))(
        keys, logits, live > 0, 2
    )
    gates, drawn = np.asarray(gates)[:, 0], np.asarray(drawn)[:, 0]
    assert np.all(drawn.sum(1) == 2) and np.all(gates.sum(1) == 1)
    assert np.all(drawn[gates == 1]) and not drawn[:, 3].any()
    p = np.array([0.5, 0.3, 0.2])
    pairs = {
        (i, j): p[i] * p[j] / (1 - p[i]) for i in range(3) for j in range(3) if i != j
    }
    for i, j in ((0, 1), (0, 2), (1, 2)):
        share = np.mean(drawn[:, i] & drawn[:, j])
        assert share == pytest.approx(pairs[i, j] + pairs[j, i], abs=0.03)
        both = drawn[:, i] & drawn[:, j]
        active = np.mean(gates[both][:, i])
        assert active == pytest.approx(p[i] / (p[i] + p[j]), abs=0.04)


@pytest.mark.parametrize("paths", [2, None])
def test_the_gate_gradient_is_that_of_the_softmax(paths):
    """sum_j dL/dg_j p_j (delta_ij - p_i): the chain rule at the path that was drawn.

    An edge's ops return fixed vectors o_j, and the loss bends.  At the sampled point
    m = o of the active op, dL/dg_j = <dL/dm, o_j>.
    """
    strategy = proxylessnas(SPEC, paths=paths, idle=())
    logits = jax.random.normal(jax.random.key(7), (7, 4)).at[6, 3].set(0)
    state = strategy.init(jax.random.key(0)).replace(params={"normal": logits})
    proposal, _ = strategy.propose(jax.random.key(1), state, 1)
    gates, live = (proposal.relaxed[k]["normal"] for k in ("weights", "live"))
    assert np.all(gates.sum(axis=1) == 1)
    outputs = jax.random.normal(jax.random.key(8), (7, 4, 5))

    def loss(gates):
        return jnp.sum(jnp.sin(jnp.einsum("rj,rjd->rd", gates, outputs)))

    slope = jax.grad(loss)(gates)
    active = jnp.einsum("rj,rjd->rd", gates, outputs)

    def softmax_sum(logits):
        mean = jnp.einsum("rj,rjd->rd", jax.nn.softmax(logits, where=live), outputs)
        return jnp.sum(jnp.cos(active) * mean)

    expected = np.asarray(jax.grad(softmax_sum)(logits))
    p = np.asarray(jax.nn.softmax(logits, where=live))
    by_hand = np.einsum("rj,rij->ri", slope * p, np.eye(4)[None] - p[:, :, None])
    np.testing.assert_allclose(by_hand, expected, atol=1e-5)
    np.testing.assert_allclose(expected.sum(axis=1), 0, atol=1e-5)
    trial = Trial(proposal, jnp.zeros(1), jnp.ones(1, bool), gradient={"normal": slope})
    new, _ = strategy.update(jax.random.key(2), state, trial)
    # Without a decay the first moment of Adam is the gradient that it saw.
    found = optax.tree.get(new.opt_state, "mu")["normal"]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_paths_that_were_not_drawn_keep_their_probability():
    driver = Driver(proxylessnas(SPEC, learning_rate=0.5, idle=()))
    slope = {"normal": jax.random.normal(jax.random.key(3), (7, 4))}
    states, _, proposals = driver.run(slope, 12)
    for old, new, proposal in zip(states, states[1:], proposals, strict=False):
        before, after = (
            np.asarray(softmax_of_live(s.params, s.live)["normal"]) for s in (old, new)
        )
        drawn = np.asarray(proposal.relaxed["live"]["normal"])
        assert np.all(drawn.sum(axis=1) == 2)
        np.testing.assert_allclose(after[~drawn], before[~drawn], atol=1e-6)
        assert np.all(np.abs(after - before)[drawn] > 1e-4)


def test_rescaled_logits_keep_the_mass_of_the_drawn():
    old, new = jax.random.normal(jax.random.key(0), (2, 5, 4))
    drawn = jnp.array([[True, True, False, False]] * 5)
    found = rescaled(old, new, drawn)
    np.testing.assert_allclose(
        np.exp(found[:, :2]).sum(1), np.exp(old[:, :2]).sum(1), rtol=1e-5
    )
    np.testing.assert_array_equal(found[:, 2:], old[:, 2:])
    np.testing.assert_allclose(
        found[:, 0] - found[:, 1], new[:, 0] - new[:, 1], rtol=1e-4
    )


def test_an_edge_whose_active_op_is_idle_is_not_updated():
    driver = Driver(proxylessnas(SPEC, learning_rate=0.5))
    slope = {"normal": jax.random.normal(jax.random.key(3), (7, 4))}
    states, _, proposals = driver.run(slope, 10)
    stayed = [
        np.all(old.params["normal"] == new.params["normal"], axis=1)
        for old, new in zip(states, states[1:], strict=False)
    ]
    idle = [np.asarray(p.relaxed["weights"]["normal"][:, 0] == 1) for p in proposals]
    np.testing.assert_array_equal(stayed, idle)
    assert np.any(idle) and not np.all(idle)
    moment, before = (s.opt_state[1][0].nu["normal"] for s in (states[1], states[0]))
    np.testing.assert_array_equal(np.all(moment == before, axis=1), idle[0])


def test_the_expected_cost_of_one_architecture_is_the_sum_of_its_costs():
    cost = {"conv": 2.5, "pool": 1.0}
    table = cost_table(SPEC, cost)["normal"]
    decisions = jnp.array([2, 3, 0, 1, 2, 3, 2])
    logits = jax.tree.map(lambda one: 90.0 * one, SPEC.one_hot(decisions))
    weights = softmax_of_live(logits, own_choices(SPEC))["normal"]
    assert jnp.sum(weights * table) == pytest.approx(3 * 2.5 + 2 * 1.0)


def test_the_slope_of_the_expected_cost_is_added_to_that_of_the_loss():
    cost = {"conv": 2.5, "pool": 1.0}
    options = {"paths": None, "idle": (), "cost": cost, "cost_weight": 3.0}
    strategy = proxylessnas(SPEC, **options)
    state = strategy.init(jax.random.key(0))
    proposal, _ = strategy.propose(jax.random.key(1), state, 1)
    trial = Trial(proposal, jnp.zeros(1), jnp.ones(1, bool), gradient=ZERO)
    new, _ = strategy.update(jax.random.key(2), state, trial)

    def expected_cost(params):
        weights = softmax_of_live(params, own_choices(SPEC))["normal"]
        return jnp.sum(weights * cost_table(SPEC, cost)["normal"])

    np.testing.assert_allclose(
        optax.tree.get(new.opt_state, "mu")["normal"],
        3.0 * jax.grad(expected_cost)(state.params)["normal"],
        atol=1e-5,
    )


@pytest.mark.parametrize("paths", [2, None])
def test_a_heavy_cost_chooses_the_cheapest_path(paths):
    cost = {"none": 3.0, "skip_connect": 2.0, "conv": 1.0, "pool": 4.0}
    driver = Driver(
        proxylessnas(
            SPEC, paths=paths, idle=(), cost=cost, cost_weight=100.0, learning_rate=0.1
        )
    )
    against = padded([[-1.0, -1.0, 1.0, -1.0]] * EDGES, (-1.0, -1.0, 1.0))
    states, *_ = driver.run(against, 100)  # all that the loss would rather have
    assert states[-1].genotype.tolist() == [2] * 7


# ---- bad input ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "text"),
    [
        ("darts", {"learning_rate": 0.0}, "learning_rate is 0.0; it must be positive"),
        ("darts", {"weight_decay": -1.0}, "weight_decay is -1.0"),
        ("pc_darts", {"adam_b1": 1.0}, "adam_b1 is 1.0"),
        ("asap", {"threshold": 1.0}, "threshold is 1.0; it must be in"),
        ("asap", {"decay": 1.5}, "decay is 1.5"),
        ("asap", {"temperature": 0.0}, "temperature is 0.0"),
        ("p_darts", {"drops": (2, 1)}, "leave one of the 3 choices"),
        ("p_darts", {"drops": (1,), "rest_rounds": 25}, "rest_rounds is 25"),
        ("p_darts", {"drops": (1,), "capped": "odd"}, "capped is 'odd'; known: normal"),
        ("p_darts", {"drops": (1,), "max_skips": -1}, "max_skips is -1"),
        ("p_darts", {"kept": {}}, "kept of '0>1' is nothing; known: none, skip_conn"),
        ("proxylessnas", {"paths": 1}, "paths is 1; it must be 2 or more"),
        ("proxylessnas", {"cost": {"sep": 1.0}}, "cost names 'sep'; known: conv, none"),
        ("proxylessnas", {"cost": {"conv": -1.0}}, "cost of 'conv' is -1.0"),
        ("proxylessnas", {"cost_weight": -1.0}, "cost_weight is -1.0"),
        ("parsec", {"temperature": 0.0}, "temperature is 0.0"),
    ],
)
def test_refuses(name, options, text):
    with pytest.raises(ValueError, match=text):
        STRATEGIES[name](SPEC, **options)
