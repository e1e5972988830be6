"""Convolutions of NHWC images, with VJPs that are fast inside control flow on CPU.

GPU and TPU use XLA's convolutions and their derivatives; see `lowering`.  On CPU a
1x1 convolution is a matrix product, a depthwise one a sum of shifted products, and
the gradients are plain NHWC convolutions and matrix products.  Functions with a VJP
of their own do not take `jax.jvp` directly, but their gradients do.
"""

import functools

import jax
import jax.numpy as jnp

from child_models.ops.kept import keep
from child_models.ops.lowering import on_cpu
from child_models.ops.window import Pair, Window, make_window, taps, transposed

_DIMENSIONS = ("NHWC", "HWIO", "NHWC")


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
    window = make_window(kernel.shape[:2], strides, dilation, padding)
    return keep(_lowered(window, x, kernel))


def _lowered(window: Window, x: jax.Array, kernel: jax.Array) -> jax.Array:
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
    size, image = kernel.shape[:2], x.shape[1:3]
    if window.dilation == (1, 1):
        by_x = _by_phases(window, kernel, cotangent, image)
    else:
        spread, inverse = transposed(window, size, image, cotangent)
        by_x = _plain(inverse, spread, _adjoint(kernel))
    by_kernel = _windowed_products
    if window.strides != (1, 1) or window.dilation != (1, 1):
        by_kernel = _tap_products
    return by_x, by_kernel(window, x, cotangent, size).astype(kernel.dtype)


_conv2d.defvjp(_conv2d_fwd, _conv2d_bwd)


def _adjoint(kernel: jax.Array) -> jax.Array:
    return jnp.swapaxes(kernel[::-1, ::-1], 2, 3)


def _by_phases(window: Window, kernel, cotangent, image: Pair) -> jax.Array:
    """The input's gradient, dilation 1: a convolution for each phase of the stride.

    Row ``stride * r + phase`` of x has met every stride-th tap of the kernel only, so
    nothing is multiplied by the zeros between the rows of a spread cotangent.
    """
    extent = [-(-h // s) for h, s in zip(image, window.strides, strict=True)]

    def part(row, column):
        first, pads = [], []
        for axis, phase in enumerate((row, column)):
            stride = window.strides[axis]
            shift, tap = divmod(phase + window.padding[axis][0], stride)
            reach = len(range(tap, kernel.shape[axis], stride)) - 1
            low = reach - shift
            high = extent[axis] + reach - cotangent.shape[1 + axis] - low
            first.append(tap)
            pads.append((low, high))
        (sh, sw), (i, j) = window.strides, first
        if i >= kernel.shape[0] or j >= kernel.shape[1]:  # a stride beyond the kernel
            shape = (cotangent.shape[0], *extent, kernel.shape[2])
            return jnp.zeros(shape, cotangent.dtype)
        inverse = Window((1, 1), (1, 1), tuple(pads))
        return _plain(inverse, cotangent, _adjoint(kernel[i::sh, j::sw]))

    sh, sw = window.strides
    if (sh, sw) == (1, 1):
        return part(0, 0)
    rows = [jnp.stack([part(i, j) for j in range(sw)], axis=3) for i in range(sh)]
    y = jnp.stack(rows, axis=2)  # [B, H', sh, W', sw, C]
    y = y.reshape(y.shape[0], extent[0] * sh, extent[1] * sw, -1)
    return y[:, : image[0], : image[1]]


def _wide(x: jax.Array) -> jnp.dtype:
    """The dtype to sum in: float32 at least."""
    return jnp.promote_types(x.dtype, jnp.float32)


def _contract(a: jax.Array, b: jax.Array) -> jax.Array:
    """``[m, n]``, in float32 at least: sum over all but the last axes of a and b."""
    return jax.lax.dot_general(
        a.reshape(-1, a.shape[-1]),
        b.reshape(-1, b.shape[-1]),
        (((0,), (0,)), ((), ())),
        preferred_element_type=_wide(a),
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
    window = make_window(kernel.shape[:2], strides, dilation, "same")
    if not on_cpu():
        return keep(_plain(window, x, kernel[:, :, None], groups=x.shape[-1]))
    return keep(_depthwise(window, x, kernel))


def _tap_sum(window: Window, x, kernel, out: Pair) -> jax.Array:
    total = 0.0
    for i, row in enumerate(taps(x, window, kernel.shape[:2], out)):
        for j, tap in enumerate(row):
            weight = kernel[i, j].astype(_wide(x)).reshape(1, 1, 1, -1)
            total = total + tap.astype(_wide(x)) * weight
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
    spread, inverse = transposed(window, size, x.shape[1:3], cotangent)
    by_x = _tap_sum(inverse, spread, kernel[::-1, ::-1], x.shape[1:3])
    return by_x, _by_rows(window, x, cotangent, size).astype(kernel.dtype)


def _by_rows(window: Window, x, cotangent, size: Pair) -> jax.Array:
    """The kernel's gradient, a row of the output at a time.

    All at once the taps would be kh * kw images each as large as x, which no cache
    holds.  Sums over images come last: on several devices these are one reduction.
    """
    none, wide = (0, 0, 0), _wide(x)
    pads = [(*p, 0) for p in window.padding]
    x = jax.lax.pad(x, jnp.zeros((), x.dtype), (none, *pads, none))
    inner = window._replace(padding=((0, 0), (0, 0)))
    height = window.dilation[0] * (size[0] - 1) + 1

    def add(row, total):
        part = jax.lax.dynamic_slice_in_dim(cotangent, row, 1, axis=1)
        seen = jax.lax.dynamic_slice_in_dim(x, row * window.strides[0], height, axis=1)
        return total + jnp.stack(
            [
                jnp.stack([(t.astype(wide) * part.astype(wide)).sum((1, 2)) for t in r])
                for r in taps(seen, inner, size, part.shape[1:3])
            ]
        )

    # Not `zeros`: under `shard_map` the total varies over the axes that x does.
    start = jax.lax.full_like(x, 0, wide, (*size, x.shape[0], x.shape[-1]))
    return jax.lax.fori_loop(0, cotangent.shape[1], add, start).sum(axis=2)


_depthwise.defvjp(_depthwise_fwd, _depthwise_bwd)
