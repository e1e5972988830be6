"""The AmoebaNet space: NASNet's two cells, whose blocks add, of 8 ops.

Real et al., https://arxiv.org/abs/1802.01548.  Each cell has
``prod_b (2 + b)^2 * 8^2`` ordered forms: 556,627,761,561,600 with B = 5.
"""

import functools

from child_models.spaces.nasnet import CELLS, nasnet
from child_models.spaces.nasnet_ops import IDENTITY
from child_models.spaces.nasnet_space import CIFAR, LARGE, MOBILE, published
from child_models.spaces.nasnet_spec import cell_spec

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

# The arguments are those of `nasnet`.
amoeba_cell = functools.partial(nasnet, ops=OPS, add_only=True)


# ---- published cells ----------------------------------------------------------------

_A = """{
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
[["avg_pool_3x3", 1], ["sep_conv_7x7", 0]]]}"""

_C = """{
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
[["max_pool_3x3", 1], ["sep_conv_3x3", 1]]]}"""

_published = functools.partial(
    published, "amoeba_cell", cell_spec(CELLS, 5, OPS, add_only=True)
)
# The cells return the states that the authors' do.
_amoebanet_a = functools.partial(
    _published,
    _A,
    blocks=5,
    normal_concat=(1, 3, 4, 6),
    reduce_concat=(2, 3, 4, 5, 6),
)
_amoebanet_c = functools.partial(
    _published,
    _C,
    blocks=5,
    normal_concat=(1, 2, 4, 5, 6),
    reduce_concat=(0, 2, 3, 4, 5, 6),
)
PUBLISHED = {
    "AmoebaNet-A-CIFAR": _amoebanet_a(CIFAR, channels=32, cells=18),
    "AmoebaNet-A-large": _amoebanet_a(
        LARGE, channels=190, cells=18, stem_multiplier=1.0
    ),
    "AmoebaNet-C-mobile": _amoebanet_c(MOBILE, channels=50, cells=12),
}
