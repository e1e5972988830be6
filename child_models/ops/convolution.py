"""Convolutions of NHWC images, with VJPs that are fast inside control flow on CPU.

GPU and TPU use XLA's convolutions and their derivatives; see `lowering`.  On CPU a
1x1 convolution is a matrix product, a depthwise one a sum of shifted products, and
the gradients are plain NHWC convolutions and matrix products.  Functions with a VJP
of their own do not take `jax.jvp` directly, but their gradients do.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from child_models.ops.lowering import on_cpu

Pair = tuple[int, int]
_DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def pair(value: int | Pair) -> Pair:
    """``(value, value)`` of an int; a pair as it is."""
    return (value, value) if isinstance(value, int) else tuple(value)


class Window(NamedTuple):
    """Static part of a convolution; each field is (height, width)."""

    strides: Pair
    dilation: Pair
    padding: tuple[Pair, Pair]  # (low, high)


def _window(size: Pair, strides: int | Pair, dilation: int | Pair, padding: str):
    dilation = pair(dilation)
    if padding not in ("same", "valid"):
        raise ValueError(f"padding {padding!r}: must be 'same' or 'valid'")
    if padding == "same" and not all(k % 2 for k in size):
        raise ValueError(f"kernel {size}: must be odd with padding 'same'")
    pads = [d * (k - 1) // 2 for k, d in zip(size, dilation, strict=True)]
    if padding == "valid":
        pads = [0, 0]
    return Window(pair(strides), dilation, ((pads[0],) * 2, (pads[1],) * 2))


def conv2d(
    x: jax.Array,
    kernel: jax.Array,
    *,
    strides: int | Pair = 1,
    dilation: int | Pair = 1,
    padding: str = "same",
) -> jax.Array:
    """Convolution, without bias.

    Args:
      x: ``[B, H, W, C]``.
      kernel: ``[kh, kw, C, features]``, of the dtype of x.
      strides: of the window; int or (height, width).
      dilation: spacing of the kernel's taps.
      padding: "valid", or "same": ``dilation * (k - 1) // 2`` zeros on both sides, so
        that the output has ``ceil(H / stride)`` rows (PyTorch's; kernels are odd).

    Returns:
      ``[B, H', W', features]``.

    Raises:
      ValueError: for an unknown padding, or an even kernel with "same".
    """
    window = _window(kernel.shape[:2], strides, dilation, padding)
    if not on_cpu():
        return _plain(window, x, kernel)
    if kernel.shape[:2] == (1, 1):
        return _pointwise(x[:, :: window.strides[0], :: window.strides[1]], kernel)
    return _conv2d(window, x, kernel)


def _plain(window: Window, x: jax.Array, kernel: jax.Array, groups: int = 1):
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        window.strides,
        window.padding,
        rhs_dilation=window.dilation,
        dimension_numbers=_DIMENSIONS,
        feature_group_count=groups,
    )


def _pointwise(x: jax.Array, kernel: jax.Array) -> jax.Array:
    # In two dimensions: on a 4-D array the gradient would make a transposed copy.
    y = x.reshape(-1, x.shape[-1]) @ kernel.reshape(kernel.shape[2:])
    return y.reshape(*x.shape[:-1], -1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _conv2d(window, x, kernel):
    return _plain(window, x, kernel)


def _conv2d_fwd(window, x, kernel):
    return _plain(window, x, kernel), (x, kernel)


def _conv2d_bwd(window, saved, cotangent):
    x, kernel = saved
    flipped = jnp.swapaxes(kernel[::-1, ::-1], 2, 3)
    spread, inverse = _transposed(window, kernel.shape[:2], x.shape[1:3], cotangent)
    by_kernel = _windowed_products
    if window.strides != (1, 1) or window.dilation != (1, 1):
        by_kernel = _tap_products
    return (
        _plain(inverse, spread, flipped),
        by_kernel(window, x, cotangent, kernel.shape[:2]).astype(kernel.dtype),
    )


_conv2d.defvjp(_conv2d_fwd, _conv2d_bwd)


def _transposed(window: Window, size: Pair, image: Pair, cotangent: jax.Array):
    """The cotangent with its strides filled by zeros, and the window that reads it."""
    spread = interleave(cotangent, window.strides)
    reach = [d * (k - 1) for k, d in zip(size, window.dilation, strict=True)]
    low = [r - p[0] for r, p in zip(reach, window.padding, strict=True)]
    high = [
        h + r - s - lo
        for h, r, s, lo in zip(image, reach, spread.shape[1:3], low, strict=True)
    ]
    pads = ((low[0], high[0]), (low[1], high[1]))
    return spread, Window((1, 1), window.dilation, pads)


def interleave(x: jax.Array, strides: Pair) -> jax.Array:
    """``x[B, H, W, C]`` with ``stride - 1`` zeros between its rows and columns."""
    if strides == (1, 1):
        return x
    (sh, sw), none = strides, (0, 0, 0)
    padding = (none, (0, 0, sh - 1), (0, 0, sw - 1), none)
    return jax.lax.pad(x, jnp.zeros((), x.dtype), padding)


def _contract(a: jax.Array, b: jax.Array) -> jax.Array:
    """float32[m, n], the sum over all but the last axes of ``a`` and ``b``."""
    return jax.lax.dot_general(
        a.reshape(-1, a.shape[-1]),
        b.reshape(-1, b.shape[-1]),
        (((0,), (0,)), ((), ())),
        preferred_element_type=jnp.float32,
    )


def _windowed_products(window: Window, x, cotangent, size: Pair) -> jax.Array:
    """The kernel's gradient, stride and dilation 1: one matrix product.

    Windows of x along the width meet windows of the cotangent along the height, which
    copies less than windows of x along both, and gives a squarer product.
    """
    (kh, kw), (_, _, pads), width = size, window, cotangent.shape[2]
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    across = jnp.concatenate([x[:, :, j : j + width] for j in range(kw)], axis=-1)
    down = jnp.concatenate(
        [
            jnp.pad(cotangent, ((0, 0), (i, kh - 1 - i), (0, 0), (0, 0)))
            for i in range(kh)
        ],
        axis=-1,
    )
    products = _contract(across, down).reshape(kw, -1, kh, cotangent.shape[-1])
    return products.transpose(2, 0, 1, 3)


def _tap_products(window: Window, x, cotangent, size: Pair) -> jax.Array:
    """The kernel's gradient: a matrix product for each of its taps."""
    rows = [
        [_contract(tap, cotangent) for tap in row]
        for row in taps(x, window, size, cotangent.shape[1:3])
    ]
    return jnp.stack([jnp.stack(row) for row in rows])


def taps(
    x: jax.Array, window: Window, size: Pair, out: Pair, fill: float = 0.0
) -> list[list[jax.Array]]:
    """What each tap of a window sees: ``[kh][kw]`` arrays ``[B, *out, C]``."""
    none = (0, 0, 0)
    pads = [(*p, 0) for p in window.padding]
    x = jax.lax.pad(x, jnp.asarray(fill, x.dtype), (none, *pads, none))

    def along(axis, tap):
        stride, start = window.strides[axis], tap * window.dilation[axis]
        return slice(start, start + stride * (out[axis] - 1) + 1, stride)

    return [
        [x[:, along(0, i), along(1, j)] for j in range(size[1])] for i in range(size[0])
    ]


# ---- depthwise ----------------------------------------------------------------------


def depthwise_conv2d(
    x: jax.Array,
    kernel: jax.Array,
    *,
    strides: int | Pair = 1,
    dilation: int | Pair = 1,
) -> jax.Array:
    """Convolution of each channel by itself, with "same" padding as in `conv2d`.

    Args:
      x: ``[B, H, W, C]``.
      kernel: ``[kh, kw, C]``, of the dtype of x.
      strides: of the window; int or (height, width).
      dilation: spacing of the kernel's taps.

    Returns:
      ``[B, ceil(H / stride), ceil(W / stride), C]``.

    Raises:
      ValueError: for an even kernel.
    """
    window = _window(kernel.shape[:2], strides, dilation, "same")
    if not on_cpu():
        return _plain(window, x, kernel[:, :, None], groups=x.shape[-1])
    return _depthwise(window, x, kernel)


def _tap_sum(window: Window, x, kernel, out: Pair) -> jax.Array:
    total = 0.0
    for i, row in enumerate(taps(x, window, kernel.shape[:2], out)):
        for j, tap in enumerate(row):
            weight = kernel[i, j].astype(jnp.float32).reshape(1, 1, 1, -1)
            total = total + tap.astype(jnp.float32) * weight
    return total.astype(x.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _depthwise(window, x, kernel):
    return _depthwise_fwd(window, x, kernel)[0]


def _depthwise_fwd(window, x, kernel):
    out = [-(-h // s) for h, s in zip(x.shape[1:3], window.strides, strict=True)]
    return _tap_sum(window, x, kernel, tuple(out)), (x, kernel)


def _depthwise_bwd(window, saved, cotangent):
    x, kernel = saved
    size = kernel.shape[:2]
    spread, inverse = _transposed(window, size, x.shape[1:3], cotangent)
    by_x = _tap_sum(inverse, spread, kernel[::-1, ::-1], x.shape[1:3])
    wide = cotangent.astype(jnp.float32)
    rows = [
        [(tap.astype(jnp.float32) * wide).sum((0, 1, 2)) for tap in row]
        for row in taps(x, window, size, cotangent.shape[1:3])
    ]
    by_kernel = jnp.stack([jnp.stack(row) for row in rows])
    return by_x, by_kernel.astype(kernel.dtype)


_depthwise.defvjp(_depthwise_fwd, _depthwise_bwd)
