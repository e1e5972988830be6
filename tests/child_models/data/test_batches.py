import jax
import jax.numpy as jnp
import numpy as np
import pytest

from child_models.data.batches import Batches

BATCHES = Batches(10, 4)  # two batches an epoch, two images dropped


@jax.jit
def take(state, length=jnp.arange(6)):
    def step(state, _):
        indices, state = BATCHES.next(state)
        return state, indices

    return jax.lax.scan(step, state, length)


def test_every_epoch_visits_images_once_in_a_new_order():
    state, indices = take(BATCHES.init(jax.random.key(0)))
    assert indices.shape == (6, 4) and indices.dtype == jnp.int32
    epochs = np.asarray(indices).reshape(3, 8)
    for epoch in epochs:
        assert len(set(epoch.tolist())) == 8 and set(epoch.tolist()) <= set(range(10))
    assert not np.array_equal(epochs[0], epochs[1])
    assert not np.array_equal(epochs[1], epochs[2])
    assert int(state.epoch) == 2 and int(state.position) == 8


def test_the_order_of_an_epoch_is_a_function_of_key_and_number():
    key = jax.random.key(3)
    _, indices = take(BATCHES.init(key))
    order = jax.random.permutation(jax.random.fold_in(key, 1), 10)
    np.testing.assert_array_equal(indices[2:4].reshape(-1), order[:8])


def test_stopping_between_batches_changes_nothing():
    state = BATCHES.init(jax.random.key(1))
    _, at_once = take(state)
    step = jax.jit(BATCHES.next)
    one_by_one = []
    for _ in range(6):
        indices, state = step(state)
        one_by_one.append(indices)
    np.testing.assert_array_equal(np.stack(one_by_one), at_once)


def test_a_batch_may_be_the_whole_split():
    batches = Batches(3, 3)
    state = batches.init(jax.random.key(0))
    for _ in range(2):
        indices, state = batches.next(state)
        assert sorted(indices.tolist()) == [0, 1, 2]
    assert batches.per_epoch == 1 and BATCHES.per_epoch == 2


def test_leaves_of_the_state_share_no_buffer():
    state = BATCHES.init(jax.random.key(0))
    donated = jax.jit(BATCHES.next, donate_argnums=0)
    indices, _ = donated(state)
    assert indices.shape == (4,)


@pytest.mark.parametrize("batch", [0, 11])
def test_a_batch_that_does_not_fit_is_named_with_its_split(batch):
    with pytest.raises(ValueError, match=f"batch of {batch} .* validation split of 10"):
        Batches(10, batch, split="validation")
