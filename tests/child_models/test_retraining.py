"""Retraining on a toy network whose first loss is known in closed form."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from child_models.retraining import retraining
from child_models.tasks.classification import classification
from child_models.types import Dataset, Space, Split

CLASSES, BATCH, EPOCHS, STEPS = 3, 4, 6, 30  # 22 images: 5 batches an epoch
TASK = classification(classes=CLASSES)


class Toy(nn.Module):
    """Linear, zero at first, with an auxiliary head; keeps the last drop-path."""

    @nn.compact
    def __call__(self, choices, x, train, drop_path=0.0):
        last = self.variable("batch_stats", "drop_path", jnp.zeros, ())
        if train and not self.is_initializing():
            last.value = jnp.float32(drop_path)
            self.sow("auxiliary", "logits", jnp.zeros((x.shape[0], CLASSES)))
        x = x.reshape(x.shape[0], -1)
        return nn.Dense(CLASSES, kernel_init=nn.initializers.zeros)(x)


SPACE = Space(None, lambda form: Toy(), lambda decisions: None, None)


def split(n, seed):
    """Images whose mean grey level tells the class."""
    generator = np.random.default_rng(seed)
    labels = (np.arange(n) % CLASSES).astype(np.int32)
    noise = generator.integers(0, 40, (n, 4, 4, 1))
    return Split((noise + 100 * labels[:, None, None, None]).astype(np.uint8), labels)


DATASET = Dataset(
    "toy",
    split(14, 0),
    split(8, 1),
    split(11, 2),
    CLASSES,
    np.array([0.45], np.float32),
    np.array([0.3], np.float32),
)


def build(**options):
    recipe = {"epochs": EPOCHS, "batch_size": BATCH, "weight_decay": 0.0}
    return retraining(SPACE, TASK, DATASET, [0], **(recipe | options))


class Compiled:
    """A training with its functions compiled."""

    def __init__(self, **options):
        self.training = build(**options)
        self._init = jax.jit(self.training.init)
        self._run = jax.jit(self.training.run, donate_argnums=0)
        self.test = jax.jit(self.training.test)

    def start(self, seed=0):
        return self._init(jax.random.key(seed), self.training.data)

    def run(self, state, count):
        return self._run(state, self.training.data, jnp.int32(count))


@pytest.fixture(scope="module")
def toy():
    return Compiled(learning_rate=0.5, drop_path=0.3, auxiliary_weight=0.4, pad=1)


def leaves(state):
    state = jax.tree.map(
        lambda x: jax.random.key_data(x) if x.dtype == state.key.dtype else x, state
    )
    return [np.asarray(x) for x in jax.tree.leaves(state)]


def test_train_and_validation_are_trained_on_and_nothing_else(toy):
    data = toy.training.data
    everything = [*DATASET.train.images, *DATASET.validation.images]
    np.testing.assert_array_equal(data["train"].images, np.stack(everything))
    assert toy.training.steps_per_epoch == 5 and toy.training.steps == STEPS


def test_the_first_loss_counts_the_auxiliary_head(toy):
    _, metrics = toy.run(toy.start(), 1)
    # Both heads give zeros: log 3 nats each.
    assert float(metrics["loss"]) == pytest.approx(1.4 * math.log(3), rel=1e-6)


def test_drop_path_rises_by_epoch_as_in_darts():
    """Epoch e of E has the probability p e / E: 0 in the first, never p."""
    toy = Compiled(learning_rate=0.5, drop_path=0.3, drop_path_by="epoch")
    state, found = toy.start(), []
    for _ in range(STEPS):
        state = toy.run(state, 1)[0]
        found.append(float(state.batch_stats["drop_path"]))
    per_epoch = STEPS // EPOCHS
    wanted = [0.3 * epoch / EPOCHS for epoch in range(EPOCHS) for _ in range(per_epoch)]
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    with pytest.raises(ValueError, match="drop_path_by is 'day'; known: step, epoch"):
        build(drop_path_by="day")


def test_drop_path_rises_linearly_to_its_value(toy):
    state = toy.start()
    assert float(state.batch_stats["drop_path"]) == 0
    for done in (1, 11, STEPS):
        state, _ = toy.run(state, done - int(state.step))
        expected = 0.3 * (done - 1) / (STEPS - 1)
        assert float(state.batch_stats["drop_path"]) == pytest.approx(expected)


def test_it_learns_and_ends(toy):
    state, metrics = toy.run(toy.start(), 10 * STEPS)
    assert int(state.step) == STEPS and not bool(state.failed)
    assert float(metrics["accuracy"]) > 0.5
    again, _ = toy.run(jax.tree.map(jnp.copy, state), 5)
    assert int(again.step) == STEPS


def test_the_size_of_a_call_does_not_change_the_result(toy):
    whole, _ = toy.run(toy.start(), STEPS)
    pieces = toy.start()
    for count in (1, 7, STEPS):
        pieces, _ = toy.run(pieces, count)
    for a, b in zip(leaves(whole), leaves(pieces), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_test_counts_every_image_once(toy):
    state, _ = toy.run(toy.start(), STEPS)
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    x = (DATASET.test.images / 255 - DATASET.mean) / DATASET.std
    logits = Toy().apply(variables, None, jnp.asarray(x, jnp.float32), False)
    expected = np.mean(np.argmax(logits, -1) == DATASET.test.labels)
    accuracy = float(toy.test(variables, toy.training.data))
    assert accuracy == pytest.approx(expected) and accuracy > 0.5


def test_a_loss_that_is_not_finite_stops_before_it_counts():
    broken = Compiled(learning_rate=1e38, momentum=0.0, clip_norm=None)
    one, _ = broken.run(broken.start(), 1)
    before = leaves(one.replace(failed=jnp.array(True)))
    state, _ = broken.run(one, STEPS)
    assert bool(state.failed) and int(state.step) == 1
    for a, b in zip(before, leaves(state), strict=True):
        np.testing.assert_array_equal(a, b)
    again, metrics = broken.run(state, STEPS)
    assert int(again.step) == 1 and np.isfinite(float(metrics["loss"]))


def test_a_batch_larger_than_the_images_is_refused():
    with pytest.raises(ValueError, match=r"batch of 23 .*train \+ validation.* 22"):
        build(batch_size=23)
