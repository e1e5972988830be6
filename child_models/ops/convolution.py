"""Convolutions."""

import jax


def pair(value):
    return (value, value) if isinstance(value, int) else tuple(value)


def _pads(kernel, dilation, padding):
    if padding == "valid":
        return [(0, 0), (0, 0)]
    return [(d * (k - 1) // 2,) * 2 for k, d in zip(kernel, dilation, strict=True)]


def conv2d(x, kernel, *, strides=1, dilation=1, padding="same"):
    strides, dilation = pair(strides), pair(dilation)
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        strides,
        _pads(kernel.shape[:2], dilation, padding),
        rhs_dilation=dilation,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def depthwise_conv2d(x, kernel, *, strides=1, dilation=1):
    strides, dilation = pair(strides), pair(dilation)
    return jax.lax.conv_general_dilated(
        x,
        kernel[:, :, None, :],
        strides,
        _pads(kernel.shape[:2], dilation, "same"),
        rhs_dilation=dilation,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1],
    )
