"""Pools against XLA's own and finite differences."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from child_models.ops import pooling
from child_models.ops.pooling import avg_pool, max_pool


def images(height=7, width=6):
    return jax.random.normal(jax.random.key(0), (2, height, width, 3))


def reference(kind, size, strides, x):
    window, pads = (size, size), [((size - 1) // 2,) * 2] * 2
    if kind == "max":
        return nn.max_pool(x, window, (strides, strides), pads)
    return nn.avg_pool(x, window, (strides, strides), pads, count_include_pad=False)


def pool(kind, size, strides, x):
    return {"max": max_pool, "avg": avg_pool}[kind](x, size, strides)


def gradient(function):
    return jax.grad(lambda x: jnp.sum(jnp.sin(function(x))))


def assert_agree(transform, kind, size, strides):
    got, wanted = (
        jax.jit(transform(functools.partial(f, kind, size, strides)))(images())
        for f in (pool, reference)
    )
    for a, b in zip(got, wanted, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


@pytest.mark.parametrize(("size", "strides"), [(1, 2), (3, 1), (3, 2), (5, 1)])
@pytest.mark.parametrize("kind", ["max", "avg"])
def test_agrees_with_xla(kind, size, strides):
    assert_agree(lambda f: lambda x: (f(x), gradient(f)(x)), kind, size, strides)


@pytest.mark.parametrize("kind", ["max", "avg"])
def test_second_order(kind):
    def second_order(function):
        first = gradient(function)
        twice = jax.grad(lambda x: jnp.sum(jnp.square(first(x))))
        return lambda x: (twice(x), jax.jvp(first, (x,), (jnp.cos(x),))[1])

    assert_agree(second_order, kind, 3, 2)


def test_maximum_agrees_with_finite_differences():
    values = jax.random.permutation(jax.random.key(1), 2 * 5 * 5)
    x = values.reshape(2, 5, 5, 1).astype(jnp.float32)  # apart by 1: no ties
    check_grads(lambda x: max_pool(x, 3, 2), (x,), 1, ["rev"], eps=0.25, atol=1e-2)


def test_ties_share_the_gradient():
    share = jax.grad(lambda x: jnp.sum(max_pool(x, 3, 3)))(jnp.zeros((1, 3, 3, 1)))
    wanted = [[0.25, 0.25, 0], [0.25, 0.25, 0], [0, 0, 0]]  # one window, 4 pixels
    np.testing.assert_allclose(share[0, :, :, 0], wanted)


def test_average_leaves_padding_out():
    np.testing.assert_allclose(avg_pool(jnp.ones((1, 4, 5, 2)), 3), 1, rtol=1e-6)


def test_bfloat16_keeps_its_dtype():
    for kind in ("max", "avg"):
        x = images().astype(jnp.bfloat16)
        y, vjp = jax.vjp(functools.partial(pool, kind, 3, 2), x)
        assert y.dtype == vjp(y)[0].dtype == jnp.bfloat16
        exact = reference(kind, 3, 2, images())
        np.testing.assert_allclose(np.asarray(y, np.float32), exact, atol=0.05)


def test_gradient_inside_scan():
    def step(x, index):
        return jax.lax.switch(
            index, [lambda x: max_pool(x, 3), lambda x: avg_pool(x, 3)], x
        ), None

    def looped(x):
        return jnp.sum(jnp.sin(jax.lax.scan(step, x, jnp.array([0, 1]))[0]))

    def unrolled(x):
        x = reference("avg", 3, 1, reference("max", 3, 1, x))
        return jnp.sum(jnp.sin(x))

    got, wanted = (jax.jit(jax.grad(f))(images()) for f in (looped, unrolled))
    np.testing.assert_allclose(got, wanted, atol=1e-5)


def test_accelerators_get_xla_operations(monkeypatch):
    monkeypatch.setattr(pooling, "on_cpu", lambda: False)
    for kind in ("max", "avg"):
        jaxpr = str(jax.make_jaxpr(functools.partial(pool, kind, 3, 1))(images()))
        assert "reduce_window" in jaxpr


def test_even_windows_are_refused():
    for kind in ("max", "avg"):
        with pytest.raises(ValueError, match="window 2: must be odd"):
            pool(kind, 2, 1, images())
