"""The relaxed supernet: what its steps touch, and what its gradients are."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from child_models.evaluators.relaxed import one_architecture, relaxed
from child_models.evaluators.shared_weights import shared_weights
from child_models.spaces import SPACES
from child_models.tasks.classification import classification
from child_models.types import Dataset, Split
from controller.types import Proposal

OPS = ("none", "skip_connect", "nor_conv_1x1")
SPACE = SPACES["nasbench201"](classes=3, channels=2, cells=1, nodes=2, ops=OPS)
SPEC = SPACE.spec
TASK = classification(classes=3)
NONE, SKIP, CONV = (jnp.array([i]) for i in range(3))


def random_split(n, seed):
    generator = np.random.default_rng(seed)
    images = generator.integers(0, 256, (n, 8, 8, 1), dtype=np.uint8)
    return Split(images, generator.integers(0, 3, n).astype(np.int32))


DATASET = Dataset(
    "random",
    random_split(12, 0),
    random_split(10, 1),
    random_split(4, 2),
    3,
    np.array([0.5], np.float32),
    np.array([0.3], np.float32),
)
SIZES = {"batch_size": 4, "reward_batch_size": 4}


def build(factory=relaxed, **options):
    return factory(SPACE, TASK, DATASET, **(SIZES | options))


def proposal(weights, live=(True, True, True)):
    architecture = {
        "weights": {"op": jnp.asarray(weights)[None]},
        "live": {"op": jnp.array([live])},
    }
    return Proposal(jnp.zeros((1, 1), jnp.int32), jnp.zeros(1), architecture)


class Compiled:
    """An evaluator's functions, compiled once, and its first state."""

    def __init__(self, jit, evaluator):
        self.evaluator = evaluator
        self.state = jit(evaluator.init)(jax.random.key(0), evaluator.data)
        self.improve = jit(
            lambda key, state, data, p: evaluator.improve(
                key, state, data, lambda key, n: p
            )
        )
        self.evaluate = jit(evaluator.evaluate)
        self.score = jit(evaluator.score)


@pytest.fixture(scope="module")
def first(quick_jit):
    return Compiled(quick_jit, build(weight_decay=0.01, unsampled="frozen"))


def leaves(params, branch):
    flat = jax.tree_util.tree_leaves_with_path(params)
    return [x for path, x in flat if branch in jax.tree_util.keystr(path)]


def test_a_step_trains_what_has_weight_and_is_live(first):
    data, key = first.evaluator.data, jax.random.key(1)
    for weights, live, moves in (
        ([0.3, 0.3, 0.4], (True,) * 3, True),
        ([0.5, 0.5, 0.0], (True,) * 3, False),
        ([0.5, 0.5, 0.0], (True, True, False), False),
    ):
        p = proposal(weights, live)
        new, metrics = first.improve(key, first.state, data, p)
        assert np.isfinite(metrics["loss"])
        pairs = zip(
            leaves(first.state.params, "branch_2"),
            leaves(new.params, "branch_2"),
            strict=True,
        )
        assert all(np.array_equal(a, b) != moves for a, b in pairs)
        assert int(new.train.position) == 4


def test_a_live_op_of_weight_0_has_a_gradient_and_a_dead_one_has_none(first):
    data, key = first.evaluator.data, jax.random.key(1)
    p = proposal([0.5, 0.5, 0.0])
    new, trial = first.evaluate(key, first.state, data, p)
    assert trial.gradient["op"][0, 2] != 0
    assert trial.reward.shape == (1,) and trial.valid.all()
    assert (int(new.validation.position), int(new.train.position)) == (4, 0)
    p = proposal([0.5, 0.5, 0.0], (True, True, False))
    _, trial = first.evaluate(key, first.state, data, p)
    assert trial.gradient["op"][0, 2] == 0


def test_gates_are_trained_as_their_path_alone_in_less_memory(first, quick_jit):
    """The others' residuals have no room in the program."""
    gates, state, data = proposal([0.0, 0.0, 1.0]), first.state, first.evaluator.data
    path = gates._replace(relaxed=gates.relaxed | {"path": CONV})
    key, steps = jax.random.key(1), []
    for p in (gates, path):
        lowered = first.improve.lower(key, state, data, p)
        temporary = lowered.compile().memory_analysis().temp_size_in_bytes
        steps.append((temporary, first.improve(key, state, data, p)[0].params))
    (masked, expected), (alone, found) = steps
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), expected, found
    )
    assert alone < masked
    trials = [first.evaluate(key, state, data, p)[1] for p in (gates, path)]
    np.testing.assert_allclose(*(t.gradient["op"] for t in trials), rtol=1e-4)


def loss_on(split, indices):
    """``(params, weights) -> float[]``, the loss on some images of a split."""
    images = jnp.float32((split.images[indices] / 255 - 0.5) / 0.3)
    module, labels = SPACE.module("search"), split.labels[indices]

    def loss(params, weights):
        choices = SPACE.bind(proposal(weights).relaxed)
        logits = module.apply({"params": params}, choices, images, True)
        return TASK.loss(logits, labels).mean()

    return loss


def test_the_gradient_is_that_of_the_validation_loss(first, quick_jit):
    data, state, weights = first.evaluator.data, first.state, jnp.array([0.2, 0.5, 0.3])
    _, trial = first.evaluate(jax.random.key(1), state, data, proposal(weights))
    loss = loss_on(DATASET.validation, np.asarray(state.validation.order[:4]))
    slope = quick_jit(jax.grad(loss, argnums=1))(state.params, weights)
    np.testing.assert_allclose(trial.gradient["op"][0], slope, rtol=1e-4)


def test_the_dominant_eigenvalue_is_that_of_the_hessian_in_the_logits(first, quick_jit):
    options = {"weight_decay": 0.01, "unsampled": "frozen"}
    measuring = build(hessian_every=2, hessian_iterations=30, **options)
    evaluate, data = quick_jit(measuring.evaluate), measuring.data
    logits, key = jnp.array([-0.5, 0.4, 0.1]), jax.random.key(1)
    state, seen = first.state, []
    for _ in range(2):
        p, before = proposal(jax.nn.softmax(logits)), state
        state, trial = evaluate(key, before, data, p)
        seen.append(float(trial.curvature))
        _, plain = first.evaluate(key, before, data, p)  # measuring changes nothing
        assert plain.curvature is None and plain.reward == trial.reward
        np.testing.assert_allclose(trial.gradient["op"], plain.gradient["op"])
    loss = loss_on(DATASET.validation, np.asarray(before.validation.order[4:8]))
    hessian = quick_jit(jax.hessian(lambda a: loss(state.params, jax.nn.softmax(a))))
    spectrum = np.linalg.eigvalsh(hessian(logits))
    assert np.isnan(seen[0])
    assert seen[1] == pytest.approx(spectrum[np.abs(spectrum).argmax()], rel=1e-2)


@pytest.mark.slow
def test_second_order_looks_one_step_of_sgd_ahead(quick_jit):
    options = {"learning_rate": 0.2, "min_learning_rate": 0.2, "weight_decay": 0.1}
    second = Compiled(quick_jit, build(hypergradient="exact", **options))
    weights, data = jnp.array([0.3, 0.3, 0.4]), second.evaluator.data
    p = proposal(weights)
    state, _ = second.improve(jax.random.key(1), second.state, data, p)
    new, trial = second.evaluate(jax.random.key(2), state, data, p)
    assert int(new.train.position) == int(state.train.position) == 4  # read, not taken
    train = loss_on(DATASET.train, np.asarray(state.train.order[4:8]))
    validation = loss_on(DATASET.validation, np.asarray(state.validation.order[:4]))
    (trace,) = [s.trace for s in state.opt_state if hasattr(s, "trace")]

    @quick_jit
    @jax.grad
    def slope(weights):
        grads = jax.grad(train)(state.params, weights)
        ahead = jax.tree.map(
            lambda w, t, g: w - 0.2 * (0.9 * t + g + 0.1 * w),
            state.params,
            trace,
            grads,
        )
        return validation(ahead, weights)

    np.testing.assert_allclose(trial.gradient["op"][0], slope(weights), rtol=1e-3)


@pytest.mark.slow
def test_finite_differences_in_a_network_at_a_small_step(quick_jit):
    p, found = proposal([0.3, 0.3, 0.4]), {}
    for kind in ("first", "finite_difference"):
        options = {"learning_rate": 1e-5, "min_learning_rate": 0.0, "momentum": 0.0}
        evaluator = Compiled(quick_jit, build(hypergradient=kind, **options))
        data = evaluator.evaluator.data
        _, trial = evaluator.evaluate(jax.random.key(2), evaluator.state, data, p)
        found[kind] = np.asarray(trial.gradient["op"])
    first, second = found.values()
    np.testing.assert_allclose(first, second, atol=1e-2 * np.abs(first).max())
    assert not np.array_equal(first, second)


def test_dropout_after_skips_decays_by_the_epoch_of_the_weights(quick_jit):
    class Told(nn.Module):
        """Whose logits are the rate that it was given."""

        skip_dropout: float = 0.4

        @nn.compact
        def __call__(self, choices, x, train, skip_dropout=0.0):
            rate = skip_dropout + 0 * self.param("w", nn.initializers.ones, ())
            return jnp.full((len(x), 3), rate)

    task = TASK._replace(loss=lambda logits, labels: logits[:, 0])
    space = SPACE._replace(module=lambda form: Told())
    options = {"restart_epochs": 25, "skip_dropout_rest": 10, "reward": "negative_loss"}
    evaluator = relaxed(space, task, DATASET, **SIZES, **options)
    p, data = proposal([0.3, 0.3, 0.4]), evaluator.data

    def step(state, key):
        _, trial = evaluator.evaluate(key, state, data, p)
        state, metrics = evaluator.improve(key, state, data, lambda key, n: p)
        return state, (metrics["loss"], -trial.reward[0])

    keys = jax.random.split(jax.random.key(1), 2 * 25 * 3)  # of 3 batches an epoch
    state = evaluator.init(jax.random.key(0), data)
    _, (found, next_one) = quick_jit(lambda s: jax.lax.scan(step, s, keys))(state)
    expected = [0.4 * (25 - e - 1) / 25 for e in range(10)]
    expected += [0.4 * np.exp(-0.2 * (e - 10)) for e in range(10, 25)]
    np.testing.assert_allclose(found, np.repeat(2 * expected, 3), rtol=1e-5)
    np.testing.assert_allclose(next_one, found, rtol=1e-6)  # of the architecture's step


def test_all_live_for_good_are_as_all_live(first):
    key, data, state = jax.random.key(1), first.evaluator.data, first.state
    masked = proposal([0.2, 0.5, 0.3])
    always = masked._replace(relaxed=masked.relaxed | {"live": None})
    trials = [first.evaluate(key, state, data, p)[1] for p in (masked, always)]
    np.testing.assert_allclose(*(t.gradient["op"] for t in trials), rtol=1e-4)
    params = [first.improve(key, state, data, p)[0].params for p in (masked, always)]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), *params)


def test_a_score_is_that_of_shared_weights(first, quick_jit):
    shared = build(shared_weights)
    score = quick_jit(shared.score)
    for decisions in (SKIP, CONV):
        ours = first.score(first.state, first.evaluator.data, decisions)
        np.testing.assert_allclose(
            ours, score(first.state, shared.data, decisions), rtol=1e-5
        )


def test_sampled_architectures_are_trained_and_scored_by_themselves(first):
    data, key = first.evaluator.data, jax.random.key(1)
    p = Proposal(jnp.vstack([SKIP, CONV, SKIP]), jnp.zeros(3))
    _, trial = first.evaluate(key, first.state, data, p)
    assert trial.gradient is None and trial.reward.shape == (3,)
    assert trial.reward[0] == trial.reward[2]
    new, metrics = first.improve(key, first.state, data, p)
    assert metrics["decisions"] == SKIP
    pairs = zip(
        leaves(first.state.params, "branch_2"),
        leaves(new.params, "branch_2"),
        strict=True,
    )
    assert all(np.array_equal(a, b) for a, b in pairs)


def test_weights_that_are_not_finite_give_neither_rewards_nor_losses(first):
    data, key = first.evaluator.data, jax.random.key(1)
    broken = first.state.replace(
        params=jax.tree.map(lambda w: w * jnp.nan, first.state.params)
    )
    p = proposal([0.3, 0.3, 0.4])
    assert np.isnan(first.evaluate(key, broken, data, p)[1].reward).all()
    assert np.isnan(first.improve(key, broken, data, p)[1]["loss"])
    assert np.isnan(first.score(broken, data, SKIP))


def test_one_architecture_runs_its_ops_only():
    architecture = one_architecture(SPEC, CONV)
    assert architecture["live"]["op"].tolist() == [[False, False, True]]
    assert architecture["weights"]["op"].tolist() == [[0, 0, 1]]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"hypergradient": "second"}, "known: first, finite_difference, exact"),
        ({"reward": "speed"}, "reward is 'speed'; known: accuracy, negative_loss"),
        ({"batch_size": 13}, "train split of 12"),
        ({"reward_batch_size": 11}, "validation split of 10"),
        ({"hessian_every": -1}, "hessian_every is -1; it must be 0 or more"),
        ({"hessian_iterations": 0}, "hessian_iterations is 0; it must be 1 or more"),
        ({"skip_dropout_rest": 5}, "rest is 5; the space has no skip_dropout"),
    ],
)
def test_refuses(options, text):
    with pytest.raises(ValueError, match=text):
        build(**options)


def test_refuses_a_space_without_the_relaxed_binding():
    fixed_only = SPACE._replace(bindings=frozenset({"fixed", "sampled"}))
    with pytest.raises(ValueError, match="needs the binding 'relaxed'.*fixed, sampled"):
        relaxed(fixed_only, TASK, DATASET, **SIZES)
