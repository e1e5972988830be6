"""Shared weights on a tiny supernet: what a step touches, and what a score is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from child_models.evaluators.shared_weights import shared_weights
from child_models.spaces import SPACES
from child_models.tasks.classification import classification
from child_models.types import Dataset, Split
from controller.types import Proposal

SPACE = SPACES["nasbench201"](classes=3, channels=4, cells=1)
TASK = classification(classes=3)
CONVS, SKIPS = (3,) * 6, (1,) * 6


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


def build(**options):
    defaults = {"batch_size": 4, "reward_batch_size": 4, "weight_decay": 0.01}
    return shared_weights(SPACE, TASK, DATASET, **(defaults | options))


def proposer(decisions):
    def propose(key, n):
        rows = jnp.broadcast_to(jnp.asarray(decisions)[None], (n, 6))
        return Proposal(rows, jnp.zeros(n))

    return propose


def compiled(evaluator):
    """``improve`` on given decisions, and an initial state."""
    improve = jax.jit(
        lambda key, state, data, decisions: evaluator.improve(
            key, state, data, proposer(decisions)
        )
    )
    return improve, jax.jit(evaluator.init)(jax.random.key(0), evaluator.data)


@pytest.fixture(scope="module")
def frozen():
    evaluator = build()
    return evaluator, *compiled(evaluator)


def branch_leaves(params, index):
    """Leaves of one branch over all edges and cells."""
    flat = jax.tree_util.tree_leaves_with_path(params)
    return [
        leaf for path, leaf in flat if f"branch_{index}" in jax.tree_util.keystr(path)
    ]


def test_one_compilation_serves_a_hundred_architectures(frozen):
    evaluator, improve, state = frozen
    before = improve._cache_size()
    keys = jax.random.split(jax.random.key(1), 100)
    for i, decisions in enumerate(jax.vmap(SPACE.spec.sample)(keys)):
        state, metrics = improve(keys[i], state, evaluator.data, decisions)
    assert np.isfinite(metrics["loss"])
    assert improve._cache_size() - before <= 1


def test_unsampled_weights_and_their_momentum_stay(frozen):
    evaluator, improve, state = frozen
    state, _ = improve(jax.random.key(1), state, evaluator.data, jnp.array(CONVS))
    new, _ = improve(jax.random.key(2), state, evaluator.data, jnp.array(SKIPS))
    for tree in (lambda s: s.params, lambda s: s.opt_state):
        old_leaves, new_leaves = (
            branch_leaves(tree(state), 3),
            branch_leaves(tree(new), 3),
        )
        assert old_leaves
        for a, b in zip(old_leaves, new_leaves, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("nesterov, factor", [(True, 1.9), (False, 1.0)])
def test_unsampled_weights_decay_where_asked(nesterov, factor):
    evaluator = build(unsampled="decay", learning_rate=0.1, nesterov=nesterov)
    improve, state = compiled(evaluator)
    new, _ = improve(jax.random.key(1), state, evaluator.data, jnp.array(SKIPS))
    kernel, decayed = (branch_leaves(s.params, 3)[0] for s in (state, new))
    # Nesterov's first step is (1 + momentum) times the decay, another's the decay.
    wanted = kernel * (1 - 0.1 * factor * 0.01)
    np.testing.assert_allclose(decayed, wanted, rtol=1e-5)


def test_score_is_the_mean_over_the_whole_validation_split(frozen):
    evaluator, _, state = frozen
    score = float(jax.jit(evaluator.score)(state, evaluator.data, jnp.array(CONVS)))
    # Ten images in batches of four: each batch has the statistics of its own images,
    # the last one is filled up from the start of the split.
    module = SPACE.module("search")
    logits_of = jax.jit(
        lambda params, images: module.apply(
            {"params": params}, SPACE.bind(jnp.array(CONVS)), images, True
        )
    )
    pixels = (DATASET.validation.images / 255 - 0.5) / 0.3
    correct = []
    for index in ([0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 0, 1]):
        images = jnp.asarray(pixels[index], jnp.float32)
        logits = logits_of(state.params, images)
        correct += list(np.argmax(logits, 1) == DATASET.validation.labels[index])
    assert score == pytest.approx(np.mean(correct[:10]))


def test_rewards_of_one_batch_do_not_depend_on_the_order(frozen):
    evaluator, _, state = frozen
    rows = jnp.array([CONVS, SKIPS, CONVS])
    new, trial = jax.jit(evaluator.evaluate)(
        jax.random.key(0), state, evaluator.data, Proposal(rows, jnp.zeros(3))
    )
    assert trial.reward[0] == trial.reward[2]
    assert trial.valid.all()
    assert int(new.validation.position) == 4  # one batch for all


def test_weights_that_are_not_finite_give_neither_scores_nor_losses(frozen):
    evaluator, improve, state = frozen
    broken = state.replace(params=jax.tree.map(lambda w: w * jnp.nan, state.params))
    _, trial = jax.jit(evaluator.evaluate)(
        jax.random.key(0),
        broken,
        evaluator.data,
        Proposal(jnp.array([CONVS, SKIPS, CONVS]), jnp.zeros(3)),
    )
    assert np.isnan(trial.reward).all()
    assert np.isnan(jax.jit(evaluator.score)(broken, evaluator.data, jnp.array(CONVS)))
    _, metrics = improve(jax.random.key(1), broken, evaluator.data, jnp.array(CONVS))
    assert np.isnan(metrics["loss"])


def test_fresh_batches_and_recalibrated_statistics_and_other_rewards():
    evaluator = build(
        reward_batch="fresh",
        batch_norm="recalibrated",
        calibration_batches=2,
        reward="negative_loss",
    )
    state = jax.jit(evaluator.init)(jax.random.key(0), evaluator.data)
    rows = jnp.array([CONVS, CONVS])
    new, trial = jax.jit(evaluator.evaluate)(
        jax.random.key(0), state, evaluator.data, Proposal(rows, jnp.zeros(2))
    )
    assert int(new.validation.position) == 8
    assert (trial.reward < 0).all()
    assert trial.reward[0] != trial.reward[1]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"batch_size": 13}, "train split of 12"),
        ({"reward_batch_size": 11}, "validation split of 10"),
        ({"reward": "speed"}, "reward is 'speed'; known: accuracy, negative_loss"),
        ({"batch_norm": "none"}, "batch_norm is 'none'; known: batch, recalibrated"),
        ({"reward_batch": "all"}, "known: shared, fresh"),
        ({"unsampled": "drop"}, "known: frozen, decay"),
        ({"architectures_per_step": 0}, "architectures_per_step is 0; it must be 1 or"),
        ({"architectures_per_step": "all"}, "is 'all'; it must be 1 or more, or 'per_"),
        (
            {"architectures_per_step": 2, "likelihood_temperature": 0.0},
            "likelihood_temperature is 0.0; it must be positive, or none",
        ),
        ({"likelihood_temperature": 1.0}, "=1 leaves nothing to weigh"),
    ],
)
def test_refuses(options, text):
    with pytest.raises(ValueError, match=text):
        build(**options)


def test_recalibration_needs_running_statistics():
    space = SPACE._replace(running_statistics=False)
    with pytest.raises(ValueError, match="needs running statistics"):
        shared_weights(space, TASK, DATASET, batch_size=4, batch_norm="recalibrated")


def test_refuses_a_space_without_the_sampled_binding():
    fixed_only = SPACE._replace(bindings=frozenset({"fixed"}))
    with pytest.raises(
        ValueError, match="shared weights needs the binding 'sampled'.*only fixed"
    ):
        shared_weights(fixed_only, TASK, DATASET, batch_size=4)
