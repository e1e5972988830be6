"""The LSTM policy beside a plain NumPy one, and over spaces that can be enumerated."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from controller.policies.lstm import Evaluation, lstm_policy, policy_from_options
from controller.spec import Decision, DecisionSpec, Distinct

OPS = ("conv", "pool", "skip")


def op(name, node=-1, choices=OPS, group="op"):
    return Decision(name, choices, group, node)


def skip(node, target):
    name = f"{node}/skip_{target}"
    return Decision(name, ("no", "yes"), "skip", node, (target, target))


def state(name, node, targets):
    return Decision(name, tuple(map(str, targets)), "input", node, targets)


# A cell of two nodes with one input each: 2 * 3 * 2 * 3 * 3 = 108 architectures.
CELL = DecisionSpec(
    (
        state("0/input", 0, (-2, -1)),
        op("0/op", 0),
        op("0/combiner", 0, ("add", "concat"), "combiner"),
        state("1/input", 1, (-2, -1, 0)),
        op("1/op", 1),
    )
)
# Three layers with all skips: 2^3 * 2^3 = 64 architectures.
CHAIN = DecisionSpec(
    (
        op("0/op", 0, OPS[:2]),
        op("1/op", 1, OPS[:2]),
        skip(1, 0),
        op("2/op", 2, OPS[:2]),
        skip(2, 0),
        skip(2, 1),
    )
)
# Two distinct inputs of a node, twice, and an op: 6 * 6 * 3 = 108 architectures.
ONCE = DecisionSpec(
    (
        state("0/left", 0, (-3, -2, -1)),
        state("0/right", 0, (-3, -2, -1)),
        op("0/op", 0),
        op("1/left", 1, tuple("xyz"), "level"),
        op("1/right", 1, tuple("xyz"), "level"),
    ),
    rule=Distinct(((0, 1), (3, 4))),
)
SPECS = {"cell": CELL, "chain": CHAIN, "once": ONCE}
OPTIONS = {
    "cell": {"tanh_constant": 1.1, "op_tanh_reduce": 2.5},
    "chain": {"tanh_constant": 1.5, "temperature": 0.7, "layers": 2},
    "once": {},
}


class Case(NamedTuple):
    spec: DecisionSpec
    options: dict
    params: dict
    vectors: np.ndarray  # int32[size, T], all that are legal
    evaluation: Evaluation  # of all of them
    drawn: np.ndarray  # int32[n, T]
    drawn_log_prob: np.ndarray  # [n]
    greedy: np.ndarray  # int32[T]


def random_params(policy, dtype="float32", scale=1.0):
    """Parameters far from their start, which need no compilation."""
    shapes = jax.eval_shape(policy.init, jax.random.key(0))
    rng = np.random.default_rng(3)
    return jax.tree.map(
        lambda leaf: rng.uniform(-scale, scale, leaf.shape).astype(dtype), shapes
    )


def make_case(name, dtype):
    """Everything that tests ask of one policy, compiled once."""
    spec, options = SPECS[name], OPTIONS[name]
    vectors = np.array(list(spec.enumerate()), np.int32)
    with jax.enable_x64(dtype == "float64"):
        policy = lstm_policy(spec, hidden=6, dtype=dtype, **options)
        params = random_params(policy, dtype)

        @jax.jit
        def ask(params, key):
            drawn = policy.sample(params, key, 4000)
            return policy.evaluate(params, vectors), *drawn, policy.greedy(params)

        answers = jax.tree.map(np.asarray, ask(params, jax.random.key(4)))
    return Case(spec, options, params, vectors, *answers)


@pytest.fixture(
    scope="module",
    params=["cell-float32", "cell-float64", "chain-float64", "once-float64"],
)
def case(request):
    return make_case(*request.param.split("-"))


def tolerance(case):
    return 1e-10 if case.evaluation.log_prob.dtype == np.float64 else 1e-5


# ---- a plain policy -----------------------------------------------------------------


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def lstm(params, state, x):
    """One layer by its gates; (c, h) before and after."""
    c, h = state

    def gate(k):
        recurrent = params[f"h{k}"]
        return (
            x @ params[f"i{k}"]["kernel"] + h @ recurrent["kernel"] + recurrent["bias"]
        )

    c = sigmoid(gate("f")) * c + sigmoid(gate("i")) * np.tanh(gate("g"))
    return c, sigmoid(gate("o")) * np.tanh(c)


def plain(spec, params, decisions, options):
    """log_prob, entropy and skip KL of one architecture, step by step."""
    size = params["learned"].shape[1]
    layers, constant = options.get("layers", 1), options.get("tanh_constant")
    states = [(np.zeros(size), np.zeros(size))] * layers
    linear, attention = [], []
    for d in spec.decisions:
        seen = attention if d.targets else linear
        if d.group not in seen:
            seen.append(d.group)
    cell_inputs = sorted({j for d in spec.decisions for j in d.targets if j < 0})
    anchors = {j: params["learned"][2 + i] for i, j in enumerate(cell_inputs[::-1])}
    x, log_prob, entropy, kl = params["learned"][0], 0.0, 0.0, {}
    for t, (d, value) in enumerate(zip(spec.decisions, decisions, strict=True)):
        for layer in range(layers):
            states[layer] = lstm(params[f"cells_{layer}"], states[layer], x)
            x = states[layer][1]
        h = x
        if t and spec.decisions[t - 1].node >= 0:
            anchors[spec.decisions[t - 1].node] = h

        def score(j, d=d, h=h):
            w1, w2 = params["attention"][attention.index(d.group)]
            v = params["attention_out"][attention.index(d.group)]
            return v @ np.tanh(w1.T @ anchors[j] + w2.T @ h)

        is_skip = d.choices == ("no", "yes")
        if is_skip:
            logits = np.array([-1, 1]) * score(d.targets[0])
        elif d.targets:
            logits = np.array([score(j) for j in d.targets])
        else:
            g, n = linear.index(d.group), len(d.choices)
            logits = (h @ params["head"][g] + params["head_bias"][g])[:n]
        logits = logits / options.get("temperature", 1.0)
        if constant is not None:
            reduce = 1.0 if d.targets else options.get("op_tanh_reduce", 1.0)
            logits = constant / reduce * np.tanh(logits)
        legal = np.asarray(spec.legal(jnp.asarray(decisions), t))[: len(d.choices)]
        probs = np.where(legal, np.exp(logits), 0)
        probs = probs / probs.sum()
        log_prob += np.log(probs[value])
        entropy -= sum(p * np.log(p) for p in probs if p)
        if is_skip:
            terms = probs * np.log(probs / np.array([0.6, 0.4]))
            kl[d.node] = kl.get(d.node, 0.0) + terms.sum()
        if is_skip:
            x = anchors[d.targets[0]] if value else params["learned"][1]
        elif d.targets:
            x = anchors[d.targets[value]]
        else:
            x = params["embedding"][linear.index(d.group), value]
    return log_prob, entropy, np.mean(list(kl.values()) or [0.0])


def test_it_is_the_plain_policy(case):
    rows = range(0, len(case.vectors), 9)
    expected = [
        plain(case.spec, case.params, case.vectors[i], case.options) for i in rows
    ]
    for values, column in zip(case.evaluation, np.transpose(expected), strict=True):
        rtol = tolerance(case)
        np.testing.assert_allclose(
            values[rows.start :: 9], column, rtol=rtol, atol=1e-12
        )


# ---- a distribution -----------------------------------------------------------------


def test_probabilities_sum_to_one(case):
    assert len(case.vectors) == case.spec.size()
    total = np.exp(case.evaluation.log_prob.astype(np.float64)).sum()
    assert total == pytest.approx(1.0, abs=tolerance(case))


def test_sampling_and_evaluation_agree(case):
    index = {tuple(v): i for i, v in enumerate(case.vectors.tolist())}
    rows = [index[tuple(v)] for v in case.drawn.tolist()]  # KeyError if not legal
    given = case.evaluation.log_prob[rows]
    np.testing.assert_allclose(case.drawn_log_prob, given, rtol=tolerance(case))


def test_samples_have_the_probabilities_evaluated(case):
    index = {tuple(v): i for i, v in enumerate(case.vectors.tolist())}
    counts = np.zeros(len(case.vectors))
    for row in case.drawn.tolist():
        counts[index[tuple(row)]] += 1
    expected = np.exp(case.evaluation.log_prob) * len(case.drawn)
    frequent = expected > 5
    chi_squared = np.sum((counts - expected)[frequent] ** 2 / expected[frequent])
    degrees = frequent.sum()
    assert degrees > 10
    assert chi_squared < degrees + 4 * math.sqrt(2 * degrees)


def test_entropy_averages_to_that_of_the_distribution(case):
    log_prob = case.evaluation.log_prob.astype(np.float64)
    probs = np.exp(log_prob)
    whole = -np.sum(probs * log_prob)  # the chain rule of entropy
    mean = np.sum(probs * case.evaluation.entropy)
    assert mean == pytest.approx(whole, rel=tolerance(case))


def test_greedy_takes_the_most_probable_choice_of_each_step(case):
    probs = np.exp(case.evaluation.log_prob)
    for t in range(case.spec.length):
        same = np.all(case.vectors[:, :t] == case.greedy[:t], axis=1)
        weights = np.bincount(case.vectors[same, t], probs[same])
        assert case.greedy[t] == np.argmax(weights)


def test_dtypes(case):
    leaves = jax.tree.leaves((case.params, case.evaluation, case.drawn_log_prob))
    assert len({leaf.dtype for leaf in leaves}) == 1
    assert case.drawn.dtype == case.greedy.dtype == np.int32


# ---- masks and gradients ------------------------------------------------------------


def test_gradients_are_finite_under_masks():
    policy = lstm_policy(ONCE, hidden=4)
    params = random_params(policy)

    def total(params):
        return sum(map(jnp.sum, policy.evaluate(params, jnp.array([[0, 1, 2, 1, 0]]))))

    gradients = jax.jit(jax.grad(total))(params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))
    assert all(np.any(leaf) for leaf in jax.tree.leaves(gradients))


# ---- skips --------------------------------------------------------------------------


def test_skip_kl_is_zero_at_the_target():
    spec = DecisionSpec((op("0/op", 0, ("conv",)), skip(1, 0)))

    def evaluate(target):
        policy = lstm_policy(spec, hidden=4, skip_target=target, dtype="float64")
        params = random_params(policy, "float64", scale=2.0)
        return policy.evaluate(params, jnp.array([[0, 1]]))

    with jax.enable_x64(True):
        elsewhere = evaluate(0.3)
        p = float(jnp.exp(elsewhere.log_prob[0]))
        kl = p * math.log(p / 0.3) + (1 - p) * math.log((1 - p) / 0.7)
        assert kl > 1e-3
        assert float(elsewhere.skip_kl[0]) == pytest.approx(kl, rel=1e-10)
        assert float(evaluate(p).skip_kl[0]) == pytest.approx(0, abs=1e-14)


# ---- arguments ----------------------------------------------------------------------


def test_bias_and_squash_give_the_probabilities_of_enas():
    policy = lstm_policy(
        DecisionSpec((op("a"),)),
        hidden=4,
        tanh_constant=1.1,
        op_tanh_reduce=2.5,
        temperature=5.0,
    )
    params = random_params(policy, scale=0.0)
    params["head_bias"] = np.array([[10, 0, -1]], np.float32)
    log_prob = policy.evaluate(params, jnp.arange(3)[:, None]).log_prob
    logits = 1.1 / 2.5 * np.tanh(np.array([10, 0, -1]) / 5)
    expected = logits - np.log(np.exp(logits).sum())
    np.testing.assert_allclose(log_prob, expected, atol=1e-6)


def test_weights_start_within_the_scale():
    policy = lstm_policy(CELL, hidden=30, op_bias={"conv": 0.05})
    params = jax.jit(policy.init)(jax.random.key(0))
    leaves = jax.tree.leaves(params)
    assert max(float(jnp.abs(leaf).max()) for leaf in leaves) <= 0.1
    matrices = [leaf for leaf in leaves if leaf.ndim > 1 and leaf.size > 100]
    assert all(leaf.std() == pytest.approx(0.0577, rel=0.15) for leaf in matrices)
    np.testing.assert_allclose(params["head_bias"], [[0.05, 0, 0], [0, 0, 0]])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden": 0}, "hidden is 0; it must be positive"),
        ({"temperature": -1.0}, "temperature is -1.0; it must be positive"),
        ({"tanh_constant": 0.0}, "tanh_constant is 0.0; it must be positive"),
        ({"skip_target": 1.0}, r"skip_target is 1.0; it must lie in \(0, 1\)"),
        ({"op_bias": {"cnv": 1.0}}, "op_bias names 'cnv'; known: conv, pool, skip"),
        ({"op_bias": (1.0, 2.0)}, "op_bias has 2 values; it needs one a choice: conv"),
        ({"hiden": 3}, "policy has no key 'hiden'; known: hidden, layers"),
    ],
)
def test_bad_arguments_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        policy_from_options(CELL, options)


def test_a_bias_needs_a_group_of_ops():
    spec = DecisionSpec((op("a"), op("b", choices=OPS[:2])))
    with pytest.raises(ValueError, match="'op' that have the same choices; .* 2 diff"):
        lstm_policy(spec, op_bias=(1.0, 2.0, 3.0))


@pytest.mark.parametrize("targets", [(1,), (0, 2)])
def test_targets_are_earlier_nodes(targets):
    spec = DecisionSpec((op("0/op", 0), state("1/input", 1, targets), op("2/op", 2)))
    with pytest.raises(
        ValueError, match=f"'1/input' has target {targets[-1]}; a target"
    ):
        lstm_policy(spec)


# ---- size of the program ------------------------------------------------------------


def test_the_program_does_not_grow_with_the_number_of_decisions():
    def lines(layers):
        decisions = [op("0/op", 0)]
        for i in range(1, layers):
            decisions += [op(f"{i}/op", i), *(skip(i, j) for j in range(i))]
        policy = lstm_policy(DecisionSpec(tuple(decisions)), hidden=4)
        params = jax.eval_shape(policy.init, jax.random.key(0))
        given = jax.ShapeDtypeStruct((2, len(decisions)), jnp.int32)
        text = jax.jit(policy.evaluate).lower(params, given).as_text()
        return len(text.splitlines())

    assert lines(3) == lines(12)
