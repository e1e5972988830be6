"""Weights side by side, and those of the chosen branches."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from child_models.choice import choose
from child_models.packed import chosen_weights, pack, unpack


def numbers(*shape):
    return jnp.arange(np.prod(shape), dtype=jnp.float32).reshape(shape)


TREE = {"a": numbers(2, 3, 4), "b": {"c": numbers(2, 3), "d": numbers(2, 3, 1, 2)}}


def test_packing_is_undone_by_unpacking():
    shapes = jax.tree.map(lambda a: a.shape[2:], TREE)
    packed = pack(TREE, axes=2)
    assert packed.shape == (2, 3, 4 + 1 + 2)
    longer = jnp.pad(packed, ((0, 0), (0, 0), (0, 5)))
    found = jax.vmap(jax.vmap(lambda row: unpack(row, shapes)))(longer)
    jax.tree.map(np.testing.assert_array_equal, found, TREE)


def test_the_chosen_branches_weights_are_taken_and_no_others_get_a_gradient():
    # Three branches of different sizes, the second without weights; two places.
    params = {
        "branch_0": {"w": numbers(2, 3)},
        "branch_2": {"v": 10 * numbers(2, 1, 2), "w": -numbers(2)},
    }

    def loss(params, choice):
        chosen = chosen_weights(params, choice, 3)
        first = jax.tree.map(lambda a: a[0], chosen)
        second = jax.tree.map(lambda a: a[1], chosen)
        return jnp.sum(first.branch(0)["w"]) + jnp.sum(second.branch(2)["v"])

    value, grads = jax.value_and_grad(loss)(params, jnp.array([0, 2]))
    assert value == 0 + 1 + 2 + 20 + 30
    np.testing.assert_array_equal(grads["branch_0"]["w"], [[1, 1, 1], [0, 0, 0]])
    np.testing.assert_array_equal(grads["branch_2"]["v"], [[[0, 0]], [[1, 1]]])
    np.testing.assert_array_equal(grads["branch_2"]["w"], [0, 0])
    chosen = chosen_weights(params, jnp.array([1, 1]), 3)
    assert chosen.values.shape == (2, 3)  # as wide as the largest branch
    np.testing.assert_array_equal(chosen.values, 0)
    assert jax.tree.map(lambda a: a[0], chosen).branch(1) == {}


class Scale(nn.Module):
    size: int

    @nn.compact
    def __call__(self, x):
        w = self.param("w", nn.initializers.normal(), (self.size,))
        return x * w.sum()


class Net(nn.Module):
    packed: bool

    @nn.compact
    def __call__(self, choice, x):
        branches = [functools.partial(Scale, size) for size in (1, 3)]
        chosen = None
        if self.packed and not self.is_initializing():
            chosen = chosen_weights(self.variables["params"]["op"], choice, 2)
        return choose(choice, branches, x, name="op", chosen=chosen)


@pytest.mark.parametrize("choice", [0, 1])
def test_a_choice_of_packed_weights_is_that_of_its_own(choice):
    x, choice = numbers(2, 2), jnp.int32(choice)
    variables = Net(False).init(jax.random.key(0), choice, x)

    def gradient(packed):
        return jax.grad(lambda v: jnp.sum(Net(packed).apply(v, choice, x) ** 2))

    expected, found = gradient(False)(variables), gradient(True)(variables)
    assert any(np.any(g != 0) for g in jax.tree.leaves(expected))
    jax.tree.map(np.testing.assert_allclose, found, expected)
