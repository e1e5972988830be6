"""The PNAS space: one cell of B blocks that add, which is strided where it reduces.

Liu et al., https://arxiv.org/abs/1712.00559, section 3.  A block takes two states and
an op for each out of 8: ``prod_b (2 + b)^2 * 8^2`` ordered cells, 556,627,761,561,600
with B = 5.  The two sides of a block may be exchanged, so that block b adds
``s (s + 1) / 2`` different ones, s = 8 (2 + b): 136, 300, 528, 820, 1176.
"""

import functools
from collections.abc import Sequence

from child_models.spaces.nasnet_ops import IDENTITY
from child_models.spaces.nasnet_space import (
    CIFAR,
    LARGE,
    MOBILE,
    cell_space,
    check_concat,
    published,
)
from child_models.spaces.nasnet_spec import cell_spec
from child_models.types import Space

OPS = (
    IDENTITY,
    "sep_conv_3x3",
    "sep_conv_5x5",
    "sep_conv_7x7",
    "conv_1x7_7x1",
    "avg_pool_3x3",
    "max_pool_3x3",
    "dil_conv_3x3",
)


def pnas_cell(
    *,
    classes: int,
    blocks: int = 5,
    fewer: bool = False,
    ops: Sequence[str] = OPS,
    channels: int = 24,
    cells: int = 6,
    stem: str = "cifar",
    stem_multiplier: float | None = None,
    concat: Sequence[int] | None = None,
    aux_head: bool = False,
    dropout: float = 0.0,
    affine: bool = True,
    remat: bool = True,
    dtype: str = "float32",
) -> Space:
    """The PNAS space.

    Args:
      classes: number of classes.
      blocks: B, blocks of the cell.
      fewer: whether a cell has 1 to B blocks, as progressive search needs it.  How many
        is the first decision, group "blocks"; the decisions of absent blocks are 0.
      ops: that a block may apply, by name; shared weights run the first of them for an
        absent block, so that the identity should lead.
      channels: F, of the first cells; doubled by each reduction.
      cells: N, in total; those at int(N/3) and int(2N/3) have stride 2.
      stem: see `nasnet.nasnet`; on ImageNet the same cell, strided, ends it.
      stem_multiplier: see `nasnet.nasnet`.
      concat: the states that the cell returns; by default those that no block takes.
        PNASNet-5 returns its blocks, of which one is taken.
      aux_head: whether the final form has an auxiliary head.
      dropout: of the final form's linear layer.
      affine: whether batch norm has a scale and a bias in the search form.
      remat: whether the search form computes an op again for its gradient in place of
        keeping what it computed: less memory, and on CPU less time too.
      dtype: of the computation; parameters and logits are float32.

    Returns:
      a space of three bindings.

    Raises:
      ValueError: on sizes that no network has, or an unknown op.
    """
    spec = cell_spec(("cell",), blocks, ops, add_only=True, fewer=fewer)
    if fewer and concat is not None:
        raise ValueError(
            f"concat={tuple(concat)}: must be None with fewer=True, where cells differ"
            " in their states"
        )
    returned = check_concat("concat", concat, blocks)
    sizes = {
        "classes": classes,
        "channels": channels,
        "cells": cells,
        "stem": stem,
        "stem_multiplier": stem_multiplier,
        "reductions_within": True,
        "normal_concat": returned,
        "reduce_concat": returned,
        "dtype": dtype,
    }
    final = {"aux_head": aux_head, "dropout": dropout}
    return cell_space(spec, ops, sizes, final=final, affine=affine, remat=remat)


# ---- published cells ----------------------------------------------------------------

_PNASNET_5 = """{
"cell": [
[["sep_conv_5x5", 1], ["max_pool_3x3", 1]],
[["sep_conv_7x7", 0], ["max_pool_3x3", 0]],
[["sep_conv_5x5", 0], ["sep_conv_3x3", 0]],
[["sep_conv_3x3", 4], ["max_pool_3x3", 0]],
[["sep_conv_3x3", 1], ["identity", 0]]]}"""


_pnasnet_5 = functools.partial(
    published,
    "pnas_cell",
    cell_spec(("cell",), 5, OPS, add_only=True),
    _PNASNET_5,
    blocks=5,
    concat=(2, 3, 4, 5, 6),
)
PUBLISHED = {
    "PNASNet-5-CIFAR": _pnasnet_5(CIFAR, channels=48, cells=9),
    "PNASNet-5-mobile": _pnasnet_5(MOBILE, channels=54, cells=9),
    "PNASNet-5-large": _pnasnet_5(LARGE, channels=216, cells=12),
}
