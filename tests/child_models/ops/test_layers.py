"""Layers: shapes, parameter counts from the papers, multiply-adds by hand."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from child_models.ops import layers
from child_models.ops.counting import count_macs
from child_models.ops.drop_path import drop_path

C = 4
X = jax.ShapeDtypeStruct((2, 8, 8, C), jnp.float32)
TRAIN = {"train": True}


def shapes(module, x=X):
    """Shape of the output, and the number of parameters."""
    variables = jax.eval_shape(module.init, jax.random.key(0), x)
    apply = functools.partial(module.apply, mutable=["batch_stats"])
    y, _ = jax.eval_shape(apply, variables, x)
    leaves = jax.tree.leaves(variables.get("params", {}))
    return y.shape, sum(leaf.size for leaf in leaves)


def macs(module, x=X):
    variables = jax.eval_shape(module.init, jax.random.key(0), x)
    apply = functools.partial(module.apply, mutable=["batch_stats"])
    return count_macs(apply, variables, x)


@pytest.mark.parametrize(
    ("module", "side", "params"),
    [
        (layers.Identity(), 8, 0),
        (layers.Zero(2), 4, 0),
        (layers.Pool("max", 3, 2), 4, 0),
        (layers.Pool("avg", 3, 1, normalize=True, affine=False, **TRAIN), 8, 0),
        (layers.FactorizedReduce(C, **TRAIN), 4, C * C + 2 * C),
        (layers.ReLUConvBN(C, **TRAIN), 8, C * C + 2 * C),
        (layers.SepConv(C, 3, 2, **TRAIN), 4, 2 * (9 * C + C * C + 2 * C)),
        (layers.SepConv(C, 5, 1, affine=False, **TRAIN), 8, 2 * (25 * C + C * C)),
        (layers.DilConv(C, 5, 2, **TRAIN), 4, 25 * C + C * C + 2 * C),
        (layers.Conv(C, (1, 7), (1, 2), use_bias=True), None, 7 * C * C + C),
    ],
    ids=lambda value: type(value).__name__,
)
def test_shapes_and_parameters(module, side, params):
    shape, count = shapes(module)
    assert count == params
    assert shape == ((2, side, side, C) if side else (2, 8, 4, C))


def test_factorized_reduce_of_odd_features_and_images():
    x = jax.random.normal(jax.random.key(0), (2, 5, 7, C))
    module = layers.FactorizedReduce(7, train=True, affine=False)
    variables = module.init(jax.random.key(1), x)
    y, _ = module.apply(variables, x, mutable=["batch_stats"])
    assert y.shape == (2, 3, 4, 7)
    first, second = (variables["params"][f"Conv_{i}"]["kernel"][0, 0] for i in (0, 1))
    assert (first.shape, second.shape) == ((C, 3), (C, 4))
    # The second convolution sees the pixel one below and to the right, or zero.
    shifted = jnp.zeros((2, 3, 4, C)).at[:, :2, :3].set(nn.relu(x)[:, 1::2, 1::2])
    paths = [nn.relu(x)[:, ::2, ::2] @ first, shifted @ second]
    wanted = jnp.concatenate(paths, axis=-1)
    wanted = (wanted - wanted.mean((0, 1, 2), keepdims=True)) / jnp.sqrt(
        wanted.var((0, 1, 2), keepdims=True) + 1e-5
    )
    np.testing.assert_allclose(y, wanted, atol=1e-5)


def test_pool_projects_where_features_differ():
    shape, count = shapes(layers.Pool("avg", 3, 2, features=6, **TRAIN))
    assert (shape, count) == ((2, 4, 4, 6), C * 6 + 2 * 6)
    with pytest.raises(ValueError, match="pool kind 'sum': must be 'max' or 'avg'"):
        shapes(layers.Pool("sum"))


@pytest.mark.parametrize(
    ("module", "wanted"),
    [
        (layers.Conv(5, (3, 3), 2, use_bias=True), 4 * 4 * 9 * C * 5),
        (layers.Conv(5, (3, 2), padding="valid"), 6 * 7 * 6 * C * 5),
        (layers.DepthwiseConv((5, 5)), 8 * 8 * 25 * C),
        (layers.SepConv(6, 3, 2, **TRAIN), 16 * (9 * C + C * 6 + 9 * 6 + 6 * 6)),
        (layers.FactorizedReduce(7, **TRAIN), 16 * C * 7),
        (layers.Pool("max"), 0),
    ],
    ids=lambda value: type(value).__name__,
)
def test_multiply_adds(module, wanted):
    assert macs(module) == wanted
    assert macs(module) == wanted  # a second trace counts again


def test_dense():
    x = jax.random.normal(jax.random.key(0), (3, C))
    module = layers.Dense(5)
    variables = module.init(jax.random.key(1), x)
    params = variables["params"]
    np.testing.assert_allclose(
        module.apply(variables, x), x @ params["kernel"] + params["bias"][None]
    )
    assert macs(module, x) == C * 5


def test_bfloat16_computes_in_bfloat16_with_float32_parameters():
    module = layers.SepConv(C, 3, 1, dtype="bfloat16", **TRAIN)
    variables = jax.eval_shape(module.init, jax.random.key(0), X)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    apply = functools.partial(module.apply, mutable=["batch_stats"])
    y, _ = jax.eval_shape(apply, variables, X)
    assert y.dtype == jnp.bfloat16


def test_initial_kernels_keep_the_variance():
    x = jax.random.normal(jax.random.key(0), (2, 4, 4, 64))
    for module in (layers.Conv(256), layers.DepthwiseConv((5, 5))):
        kernel = module.init(jax.random.key(1), x)["params"]["kernel"]
        fan_in = kernel.size // kernel.shape[-1]
        np.testing.assert_allclose(kernel.var() * fan_in, 2, rtol=0.2)


def test_drop_path_drops_whole_samples_and_keeps_the_mean():
    x = jnp.ones((4000, 2, 1, 1))
    y = jax.jit(drop_path)(x, 0.25, jax.random.key(0))[:, :, 0, 0]
    np.testing.assert_allclose(y[:, 0], y[:, 1])
    np.testing.assert_allclose(np.unique(y), [0, 1 / 0.75], rtol=1e-6)
    np.testing.assert_allclose(y.mean(), 1, atol=0.04)  # four standard errors
    np.testing.assert_array_equal(drop_path(x, 0.0, jax.random.key(0)), x)
