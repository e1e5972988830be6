"""The AmoebaNet space: NASNet's two cells, whose blocks add, of 8 ops.

Real et al., https://arxiv.org/abs/1802.01548.  Each cell has
``prod_b (2 + b)^2 * 8^2`` ordered forms: 556,627,761,561,600 with B = 5.
"""

import functools
from typing import Any

from child_models.spaces.nasnet import CELLS, nasnet
from child_models.spaces.nasnet_ops import IDENTITY
from child_models.spaces.nasnet_spec import cell_spec
from child_models.types import Published

OPS = (
    IDENTITY,
    "sep_conv_3x3",
    "sep_conv_5x5",
    "sep_conv_7x7",
    "avg_pool_3x3",
    "max_pool_3x3",
    "dil_sep_conv_3x3",
    "conv_1x7_7x1",
)

amoeba_cell = functools.partial(nasnet, ops=OPS, add_only=True)


# ---- published cells ----------------------------------------------------------------

# Beside their text, the states that the authors' normal and reduction cell return.
_CELLS = {
    "A": (
        """{
"normal": [
[["avg_pool_3x3", 0], ["max_pool_3x3", 0]],
[["sep_conv_3x3", 1], ["identity", 1]],
[["identity", 0], ["avg_pool_3x3", 1]],
[["sep_conv_3x3", 0], ["sep_conv_5x5", 2]],
[["avg_pool_3x3", 5], ["sep_conv_3x3", 0]]],
"reduce": [
[["sep_conv_3x3", 1], ["avg_pool_3x3", 0]],
[["max_pool_3x3", 0], ["sep_conv_7x7", 2]],
[["max_pool_3x3", 1], ["max_pool_3x3", 0]],
[["sep_conv_3x3", 4], ["conv_1x7_7x1", 0]],
[["avg_pool_3x3", 1], ["sep_conv_7x7", 0]]]}""",
        (1, 3, 4, 6),
        (2, 3, 4, 5, 6),
    ),
    "C": (
        """{
"normal": [
[["avg_pool_3x3", 0], ["sep_conv_3x3", 0]],
[["identity", 0], ["sep_conv_3x3", 0]],
[["avg_pool_3x3", 2], ["sep_conv_3x3", 1]],
[["identity", 0], ["sep_conv_3x3", 1]],
[["avg_pool_3x3", 3], ["sep_conv_3x3", 0]]],
"reduce": [
[["max_pool_3x3", 0], ["max_pool_3x3", 0]],
[["sep_conv_7x7", 2], ["sep_conv_3x3", 0]],
[["sep_conv_7x7", 0], ["max_pool_3x3", 1]],
[["sep_conv_5x5", 4], ["sep_conv_5x5", 4]],
[["max_pool_3x3", 1], ["sep_conv_3x3", 1]]]}""",
        (1, 2, 4, 5, 6),
        (0, 2, 3, 4, 5, 6),
    ),
}


def _amoebanet(cell: str, image: tuple[int, int, int], **sizes: Any) -> Published:
    text, normal, reduce = _CELLS[cell]
    decisions = cell_spec(CELLS, 5, OPS, add_only=True).decode(text)
    concat = {"normal_concat": normal, "reduce_concat": reduce}
    return Published("amoeba_cell", {"blocks": 5, **sizes, **concat}, image, decisions)


_CIFAR = {
    "classes": 10,
    "channels": 32,
    "cells": 18,
    "stem": "cifar",
    "stem_multiplier": 3.0,
}
PUBLISHED = {
    "AmoebaNet-A-CIFAR": _amoebanet("A", (32, 32, 3), **_CIFAR),
    "AmoebaNet-A-large": _amoebanet(
        "A",
        (331, 331, 3),
        classes=1000,
        channels=190,
        cells=18,
        stem="imagenet",
        stem_multiplier=1.0,
    ),
    "AmoebaNet-C-mobile": _amoebanet(
        "C",
        (224, 224, 3),
        classes=1000,
        channels=50,
        cells=12,
        stem="imagenet",
        stem_multiplier=1.0,
    ),
}
