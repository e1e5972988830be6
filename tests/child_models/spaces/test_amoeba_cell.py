"""The AmoebaNet space: its size, its dilated op, published counts.

That the bindings of the search form agree is tested with those of the other spaces.
"""

import numpy as np
import pytest

from child_models.cost import count
from child_models.genotype import Block
from child_models.spaces.amoeba_cell import OPS, PUBLISHED, amoeba_cell
from child_models.spaces.nasnet import nasnet


def published_cost(name, **overrides):
    published = PUBLISHED[name]
    space = amoeba_cell(**{**published.arguments, **overrides})
    choices = space.bind(np.array(published.decisions))
    return count(space.module("final"), choices, published.image)


def test_the_size_is_that_of_two_cells_of_eight_ops():
    spec = amoeba_cell(classes=10).spec
    assert spec.length == 40 and set(spec.groups) == {"input", "op"}
    assert len(set(OPS)) == 8
    assert spec.size() == 556_627_761_561_600**2
    assert spec.size() == pytest.approx(3.098e29, rel=1e-3)
    assert len(spec.symmetries) == 10 and len(spec.expansions(9)) == 1176


def test_both_sides_of_every_block_may_be_exchanged():
    spec = amoeba_cell(classes=10, blocks=2).spec
    cells = np.array([0, 1, 2, 0, 2, 2, 5, 3] * 2)
    expected = [0, 1, 2, 0, 2, 2, 3, 5] * 2
    assert spec.canonical(cells).tolist() == expected
    exchanged = cells.reshape(-1, 2)[:, ::-1].ravel()
    assert spec.canonical(exchanged).tolist() == expected


def test_a_genotype_is_read_with_and_without_combiners():
    block = '[["sep_conv_3x3", 0], ["dil_sep_conv_3x3", 1]%s]'
    text = f'{{"normal": [{block}], "reduce": [{block}]}}'
    spec = amoeba_cell(classes=10, blocks=1).spec
    decisions = spec.decode(text % ("", ""))
    assert decisions == (0, 1, 1, 6) * 2
    assert spec.decode(text % (', "add"', "")) == decisions
    assert spec.encode(decisions) == text % ("", "")


def test_the_dilated_op_is_separable_and_applied_twice():
    space = amoeba_cell(classes=2, blocks=1, channels=8, cells=2)
    names = (OPS.index("identity"), OPS.index("dil_sep_conv_3x3"))
    reduce = (Block((1, 1), (0, 0)),)
    sizes = [
        count(
            space.module("final"),
            {"normal": (Block((0, 0), (0, op)),), "reduce": reduce},
            (8, 8, 3),
        ).params
        for op in names
    ]
    widths = (16, 32)  # of the two normal cells
    assert sizes[1] - sizes[0] == sum(2 * (9 * f + f * f + 2 * f) for f in widths)


def test_amoebanet_a_has_its_published_size():
    assert published_cost("AmoebaNet-A-CIFAR").params == 2_567_754


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "overrides", "params", "macs"),
    [
        ("AmoebaNet-A-CIFAR", {"channels": 36}, 3.2, None),
        ("AmoebaNet-A-large", {}, 86.7, 23.1e9),
        ("AmoebaNet-C-mobile", {}, 6.4, None),
    ],
)
def test_other_networks_have_the_paper_s_sizes(name, overrides, params, macs):
    cost = published_cost(name, **overrides)
    assert round(cost.params / 1e6, 1) == params
    if macs is not None:
        assert cost.macs == pytest.approx(macs, rel=0.005)


def test_it_is_nasnet_s_space_with_other_ops():
    same = nasnet(classes=10, ops=OPS, add_only=True)
    assert same.spec == amoeba_cell(classes=10).spec
