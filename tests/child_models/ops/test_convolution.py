"""Convolutions against XLA's own, in value and in derivatives of both orders."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from child_models.ops import convolution
from child_models.ops.convolution import conv2d, depthwise_conv2d
from child_models.ops.window import pair

KEYS = jax.random.split(jax.random.key(0), 4)
DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def reference(x, kernel, *, strides=1, dilation=1, padding="same", groups=1):
    pads = [
        d * (k - 1) // 2 for k, d in zip(kernel.shape, pair(dilation), strict=False)
    ]
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        pair(strides),
        [(p, p) for p in pads] if padding == "same" else "VALID",
        rhs_dilation=pair(dilation),
        dimension_numbers=DIMENSIONS,
        feature_group_count=groups,
    )


def depthwise_reference(x, kernel, **settings):
    return reference(x, kernel[:, :, None], groups=x.shape[-1], **settings)


def inputs(kernel_shape):
    x = jax.random.normal(KEYS[0], (2, 7, 6, 3))
    return x, jax.random.normal(KEYS[1], kernel_shape)


def loss(conv, x, kernel):
    return jnp.sum(jnp.sin(conv(x, kernel)))


def assert_close(got, wanted, tolerance=1e-4):
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, atol=tolerance, rtol=tolerance)


def values_and_grads(conv, arguments):
    @jax.jit
    @functools.partial(jax.value_and_grad, argnums=(0, 1), has_aux=True)
    def evaluate(*arguments):
        y = conv(*arguments)
        return jnp.sum(jnp.sin(y)), y

    (_, y), grads = evaluate(*arguments)
    return y, grads


SIZES = [(1, 1), (3, 3), (5, 5), (1, 7), (7, 1)]
CASES = [(size, {}) for size in SIZES]
CASES += [(size, {"strides": 2}) for size in SIZES]
CASES += [(size, {"dilation": 2}) for size in SIZES[1:3]]
CASES += [((3, 5), {"strides": (2, 1), "dilation": (1, 2)})]


@pytest.mark.parametrize(("size", "settings"), CASES, ids=str)
def test_conv2d_agrees_with_xla(size, settings):
    arguments = inputs((*size, 3, 4))
    assert_close(
        values_and_grads(functools.partial(conv2d, **settings), arguments),
        values_and_grads(functools.partial(reference, **settings), arguments),
    )


@pytest.mark.parametrize(("size", "strides"), [((1, 1), 3), ((2, 2), 1), ((3, 2), 2)])
def test_conv2d_without_padding(size, strides):
    settings = {"strides": strides, "padding": "valid"}
    arguments = inputs((*size, 3, 4))
    assert_close(
        values_and_grads(functools.partial(conv2d, **settings), arguments),
        values_and_grads(functools.partial(reference, **settings), arguments),
    )


@pytest.mark.parametrize(("size", "settings"), CASES[1:], ids=str)
def test_depthwise_conv2d_agrees_with_xla(size, settings):
    arguments = inputs((*size, 3))
    assert_close(
        values_and_grads(functools.partial(depthwise_conv2d, **settings), arguments),
        values_and_grads(functools.partial(depthwise_reference, **settings), arguments),
    )


def second_order(conv, x, kernel):
    """The gradient of the gradient's square, and the gradient's JVP."""
    gradient = jax.grad(functools.partial(loss, conv), (0, 1))

    def square(*arguments):
        return sum(jnp.sum(jnp.square(g)) for g in gradient(*arguments))

    tangents = (jnp.cos(x), jnp.cos(kernel))
    twice = jax.grad(square, (0, 1))(x, kernel)
    return twice, jax.jvp(gradient, (x, kernel), tangents)[1]


@pytest.mark.parametrize(
    ("ours", "theirs", "shape", "strides"),
    [
        (conv2d, reference, (1, 1, 3, 4), 2),
        (conv2d, reference, (3, 3, 3, 4), 1),
        (conv2d, reference, (3, 3, 3, 4), 2),
        (depthwise_conv2d, depthwise_reference, (3, 3, 3), 2),
    ],
)
def test_second_order(ours, theirs, shape, strides):
    got, wanted = (
        jax.jit(
            functools.partial(second_order, functools.partial(conv, strides=strides))
        )(*inputs(shape))
        for conv in (ours, theirs)
    )
    assert_close(got, wanted, 1e-3)


def vjp(conv, arguments):
    """The output, and what it pulls back of ones."""
    y, pullback = jax.vjp(jax.jit(conv), *arguments)
    return y, *pullback(jnp.ones_like(y))


def test_bfloat16_keeps_its_dtype():
    for conv, shape in ((conv2d, (3, 3, 3, 4)), (depthwise_conv2d, (3, 3, 3))):
        halves = [a.astype(jnp.bfloat16) for a in inputs(shape)]
        narrow = vjp(conv, halves)
        wide = vjp(conv, [a.astype(jnp.float32) for a in halves])
        for a, b in zip(narrow, wide, strict=True):
            assert a.dtype == jnp.bfloat16
            error = np.abs(np.asarray(a, np.float32) - b).max()
            assert error < 0.02 * np.abs(b).max()


def test_gradient_inside_switch_and_scan():
    x, kernel = inputs((3, 3, 3, 3))

    def step(x, index):
        branches = [conv2d, functools.partial(conv2d, dilation=2)]
        return jnp.tanh(jax.lax.switch(index, branches, x, kernel)), None

    def looped(x):
        return jnp.sum(jax.lax.scan(step, x, jnp.array([0, 1]))[0])

    def unrolled(x):
        x = jnp.tanh(reference(x, kernel))
        return jnp.sum(jnp.tanh(reference(x, kernel, dilation=2)))

    assert_close(jax.jit(jax.grad(looped))(x), jax.jit(jax.grad(unrolled))(x))


def test_gradients_on_cpu_are_plain_convolutions():
    x, kernel = inputs((3, 3, 3, 4))
    for strides in (1, 2):
        conv = functools.partial(conv2d, strides=strides)
        gradient = jax.grad(functools.partial(loss, conv), (0, 1))
        jaxpr = jax.make_jaxpr(gradient)(x, kernel)
        convolutions = [
            e.params
            for e in _equations(jaxpr.jaxpr)
            if e.primitive.name == "conv_general_dilated"
        ]
        assert len(convolutions) == 1 + strides**2  # one for each phase of the stride
        for params in convolutions:
            assert params["lhs_dilation"] == (1, 1)
            assert params["dimension_numbers"] == jax.lax.conv_dimension_numbers(
                x.shape, kernel.shape, DIMENSIONS
            )


def _equations(jaxpr):
    for equation in jaxpr.eqns:
        yield equation
        for value in equation.params.values():
            if (inner := getattr(value, "jaxpr", None)) is not None:
                yield from _equations(inner)


def test_accelerators_get_xla_operations(monkeypatch):
    monkeypatch.setattr(convolution, "on_cpu", lambda: False)
    for conv, wanted, shape in (
        (conv2d, reference, (3, 3, 3, 4)),
        (conv2d, reference, (1, 1, 3, 4)),
        (depthwise_conv2d, depthwise_reference, (3, 3, 3)),
    ):
        arguments = inputs(shape)
        jaxpr = jax.make_jaxpr(lambda *a, conv=conv: conv(*a))(
            *arguments
        )  # untraced yet
        names = [equation.primitive.name for equation in jaxpr.eqns]
        assert names[-2:] == ["conv_general_dilated", "name"]
        assert_close(conv(*arguments), wanted(*arguments))


def test_bad_windows():
    x, kernel = inputs((2, 2, 3, 4))
    with pytest.raises(ValueError, match="kernel .2, 2.: must be odd"):
        conv2d(x, kernel)
    with pytest.raises(ValueError, match="padding 'SAME': must be 'same' or 'valid'"):
        conv2d(x, kernel, padding="SAME")
