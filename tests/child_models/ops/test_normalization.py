"""Batch norm against Flax's and against JAX's own derivatives."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from child_models.ops.normalization import BatchNorm, batch_norm

KEYS = jax.random.split(jax.random.key(0), 3)
X = 3 + 2 * jax.random.normal(KEYS[0], (4, 5, 3, 2))
SCALE, BIAS = jax.random.normal(KEYS[1], (2,)), jax.random.normal(KEYS[2], (2,))


def written_out(x, scale, bias):
    mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
    y = (x - mean[None, None, None]) / jnp.sqrt(var + 1e-5)[None, None, None]
    return y * scale[None, None, None] + bias[None, None, None], mean, var


def derivatives(function, *arguments):
    """Value, gradient through all three outputs, and the second order both ways."""

    def loss(*arguments):
        y, mean, var = function(*arguments)
        return jnp.sum(jnp.sin(y)) + jnp.sum(mean**3) + jnp.sum(var**2)

    every = tuple(range(len(arguments)))
    gradient = jax.grad(loss, every)

    def square(*arguments):
        return sum(jnp.sum(jnp.square(g)) for g in gradient(*arguments))

    tangents = jax.tree.map(jnp.cos, arguments)
    return (
        function(*arguments),
        gradient(*arguments),
        jax.jvp(gradient, arguments, tangents)[1],
        jax.grad(square, every)(*arguments),
    )


@pytest.mark.parametrize("affine", [True, False])
def test_derivatives(affine):
    def ours(x, scale=None, bias=None):
        return batch_norm(x, scale, bias)

    def theirs(x, scale=None, bias=None):
        scale = jnp.ones(2) if scale is None else scale
        return written_out(x, scale, jnp.zeros(2) if bias is None else bias)

    arguments = (X, SCALE, BIAS) if affine else (X,)
    got, wanted = (
        jax.jit(lambda *a, f=f: derivatives(f, *a))(*arguments) for f in (ours, theirs)
    )
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3 * np.abs(b).max())


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("affine", [True, False])
def test_module_agrees_with_flax(train, affine):
    ours = BatchNorm(train, affine, momentum=0.7)
    theirs = nn.BatchNorm(
        not train, momentum=0.7, epsilon=1e-5, use_bias=affine, use_scale=affine
    )
    variables = ours.init(jax.random.key(0), X)
    assert jax.tree.structure(variables) == jax.tree.structure(
        theirs.init(jax.random.key(0), X)
    )
    running = {"mean": BIAS, "var": jnp.square(SCALE)}
    params = {"scale": SCALE, "bias": BIAS} if affine else {}
    variables = {"params": params, "batch_stats": running}
    got, wanted = (
        m.apply(variables, X, mutable=["batch_stats"]) for m in (ours, theirs)
    )
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_running_statistics_are_optional_in_training():
    y = BatchNorm(train=True, affine=False).apply({}, X)
    np.testing.assert_allclose(y.mean((0, 1, 2)), 0, atol=1e-5)


def test_statistics_of_bfloat16_are_float32():
    x = (X + 100).astype(jnp.bfloat16)
    y, mean, var = batch_norm(x, SCALE, BIAS)
    wide = np.asarray(x, np.float64)
    assert (y.dtype, mean.dtype, var.dtype) == (jnp.bfloat16, jnp.float32, jnp.float32)
    np.testing.assert_allclose(mean, wide.mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(var, wide.var((0, 1, 2)), rtol=1e-5)


def test_variance_is_stable_far_from_zero():
    _, _, var = batch_norm(X + 1e4, None, None)
    np.testing.assert_allclose(var, X.var((0, 1, 2)), rtol=1e-2)
