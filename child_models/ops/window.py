"""Windows of convolutions and pools: padding, and shifted views of an image."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

Pair = tuple[int, int]


def pair(value: int | Pair) -> Pair:
    """``(value, value)`` of an int; a pair as it is."""
    return (value, value) if isinstance(value, int) else tuple(value)


class Window(NamedTuple):
    """Static part of a convolution; each field is (height, width)."""

    strides: Pair
    dilation: Pair
    padding: tuple[Pair, Pair]  # (low, high)


def make_window(
    size: Pair, strides: int | Pair, dilation: int | Pair, padding: str
) -> Window:
    """The window of a kernel of that size, with "same" or "valid" padding.

    Raises:
      ValueError: for an unknown padding, or an even kernel with "same".
    """
    dilation = pair(dilation)
    if padding not in ("same", "valid"):
        raise ValueError(f"padding {padding!r}: must be 'same' or 'valid'")
    if padding == "same" and not all(k % 2 for k in size):
        raise ValueError(f"kernel {size}: must be odd with padding 'same'")
    pads = [d * (k - 1) // 2 for k, d in zip(size, dilation, strict=True)]
    if padding == "valid":
        pads = [0, 0]
    return Window(pair(strides), dilation, ((pads[0],) * 2, (pads[1],) * 2))


def interleave(x: jax.Array, strides: Pair) -> jax.Array:
    """``x[B, H, W, C]`` with ``stride - 1`` zeros between its rows and columns."""
    if strides == (1, 1):
        return x
    (sh, sw), none = strides, (0, 0, 0)
    padding = (none, (0, 0, sh - 1), (0, 0, sw - 1), none)
    return jax.lax.pad(x, jnp.zeros((), x.dtype), padding)


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


def transposed(
    window: Window, size: Pair, image: Pair, cotangent: jax.Array
) -> tuple[jax.Array, Window]:
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
