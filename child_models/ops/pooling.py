"""Pools of NHWC images, with VJPs that are fast inside control flow on CPU.

GPU and TPU use XLA's ``reduce_window``; see `lowering`.  Where several pixels of a
window are equal to its maximum, they share the gradient equally on CPU, and the first
gets it elsewhere.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from child_models.ops.lowering import on_cpu
from child_models.ops.window import Pair, Window, interleave, make_window, taps


def _same(size: int, strides: int) -> Window:
    if size % 2 == 0:
        raise ValueError(f"window {size}: must be odd")
    return make_window((size, size), strides, 1, "same")


def _pooled(image: Pair, window: Window) -> Pair:
    (h, w), (sh, sw) = image, window.strides
    return -(-h // sh), -(-w // sw)


def _inverse(size: int, image: Pair, spread: Pair) -> Window:
    """The window by which a pixel sees the outputs that it is part of."""
    low = (size - 1) // 2
    high = [h + size - 1 - s - low for h, s in zip(image, spread, strict=True)]
    return Window((1, 1), (1, 1), ((low, high[0]), (low, high[1])))


def _flat(rows: list[list[jax.Array]]) -> list[jax.Array]:
    return [tap for row in rows for tap in row]


# ---- maximum ------------------------------------------------------------------------


def max_pool(x: jax.Array, size: int, strides: int = 1) -> jax.Array:
    """Maximum over square windows; padding, (size - 1) // 2 a side, never wins.

    Args:
      x: ``[B, H, W, C]``.
      size: of the window, odd.
      strides: of the window.

    Returns:
      ``[B, ceil(H / stride), ceil(W / stride), C]``.

    Raises:
      ValueError: for an even size.
    """
    window = _same(size, strides)
    if not on_cpu():
        return nn.max_pool(x, (size, size), window.strides, window.padding)
    return _max_pool(size, window, x)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _max_pool(size, window, x):
    return _max_pool_fwd(size, window, x)[0]


def _max_pool_fwd(size, window, x):
    out = _pooled(x.shape[1:3], window)
    y = functools.reduce(
        jnp.maximum, _flat(taps(x, window, (size, size), out, -np.inf))
    )
    return y, (x, y)


def _max_pool_bwd(size, window, saved, cotangent):
    x, y = saved
    seen = _flat(taps(x, window, (size, size), y.shape[1:3], -np.inf))
    equal = sum((tap == y).astype(cotangent.dtype) for tap in seen)
    share = interleave(cotangent / jnp.maximum(equal, 1), window.strides)
    y = interleave(y, window.strides)
    inverse = _inverse(size, x.shape[1:3], y.shape[1:3])
    shares, maxima = (
        _flat(taps(a, inverse, (size, size), x.shape[1:3])) for a in (share, y)
    )
    pairs = zip(shares, maxima, strict=True)
    return (sum(jnp.where(x == maximum, s, 0) for s, maximum in pairs),)


_max_pool.defvjp(_max_pool_fwd, _max_pool_bwd)


# ---- average ------------------------------------------------------------------------


def avg_pool(x: jax.Array, size: int, strides: int = 1) -> jax.Array:
    """Average over square windows, of the pixels that are inside the image.

    Args:
      x: ``[B, H, W, C]``.
      size: of the window, odd; padding is (size - 1) // 2 a side.
      strides: of the window.

    Returns:
      ``[B, ceil(H / stride), ceil(W / stride), C]``.

    Raises:
      ValueError: for an even size.
    """
    window = _same(size, strides)
    if not on_cpu():
        return nn.avg_pool(
            x, (size, size), window.strides, window.padding, count_include_pad=False
        )
    return _avg_pool(size, window, x.shape[1:3], x)


def _counts(size: int, window: Window, image: Pair) -> np.ndarray:
    """float32[1, H', W', 1]: pixels of the image in each window."""
    half, counts = (size - 1) // 2, []
    for length, stride in zip(image, window.strides, strict=True):
        centre = np.arange(0, length, stride)
        low, high = np.maximum(centre - half, 0), np.minimum(centre + half, length - 1)
        counts.append(high - low + 1)
    return np.outer(*counts).astype(np.float32)[None, :, :, None]


def _average(size, window, image, x):
    total = sum(_flat(taps(x, window, (size, size), _pooled(image, window))))
    return total / _counts(size, window, image).astype(x.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _avg_pool(size, window, image, x):
    return _average(size, window, image, x)


def _avg_pool_fwd(size, window, image, x):
    return _average(size, window, image, x), None


def _avg_pool_bwd(size, window, image, _, cotangent):
    share = cotangent / _counts(size, window, image).astype(cotangent.dtype)
    share = interleave(share, window.strides)
    inverse = _inverse(size, image, share.shape[1:3])
    return (sum(_flat(taps(share, inverse, (size, size), image))),)


_avg_pool.defvjp(_avg_pool_fwd, _avg_pool_bwd)


# ---- 2x2 ----------------------------------------------------------------------------


def halve(x: jax.Array, kind: str) -> jax.Array:
    """2x2 pool of stride 2; at an odd edge, of the pixels that are there.

    Args:
      x: ``[B, H, W, C]``.
      kind: "max" or "avg".

    Returns:
      ``[B, ceil(H / 2), ceil(W / 2), C]``.
    """
    b, h, w, c = x.shape
    if h % 2 or w % 2:
        x = jnp.pad(x, ((0, 0), (0, h % 2), (0, w % 2), (0, 0)), mode="edge")
    windows = x.reshape(b, (h + 1) // 2, 2, (w + 1) // 2, 2, c)
    return {"max": jnp.max, "avg": jnp.mean}[kind](windows, axis=(2, 4))
