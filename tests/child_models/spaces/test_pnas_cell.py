"""The PNAS space: sizes, unique cells, cells of fewer blocks, published counts.

That the bindings of the search form agree is tested with those of the other spaces.
"""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from child_models.cost import count
from child_models.spaces.nasnet_search import _returned
from child_models.spaces.nasnet_spec import cell_spec
from child_models.spaces.pnas_cell import OPS, PUBLISHED, pnas_cell

EXPANSIONS = (136, 300, 528, 820, 1176)
# Of two ops and up to two blocks: 16 cells of one block, 16 * 36 of two.
FEWER = cell_spec(("cell",), 2, OPS[:2], add_only=True, fewer=True)


@pytest.fixture(scope="module")
def fewer():
    return pnas_cell(classes=3, blocks=2, fewer=True, channels=4, cells=2)


# ---- decisions ----------------------------------------------------------------------


def test_the_size_is_the_paper_s():
    spec = pnas_cell(classes=10).spec
    assert spec.length == 20 and set(spec.groups) == {"input", "op"}
    assert len(set(OPS)) == 8
    assert spec.size() == 556_627_761_561_600
    sizes = [math.prod((2 + i) ** 2 * 64 for i in range(b)) for b in range(1, 6)]
    assert pnas_cell(classes=10, fewer=True).spec.size() == sum(sizes)


def test_block_b_adds_the_paper_s_number_of_expansions():
    spec = pnas_cell(classes=10).spec
    for b in range(5):  # two states and those of earlier blocks, eight ops, two sides
        sizes = [len(d.choices) for d in spec.decisions if d.node == b]
        assert math.prod(sizes) == 64 * (b + 2) ** 2
    assert tuple(len(spec.expansions(b)) for b in range(5)) == EXPANSIONS
    assert len(pnas_cell(classes=10, fewer=True).spec.expansions(4)) == EXPANSIONS[4]


def test_unique_cells_of_one_block_by_brute_force():
    spec = pnas_cell(classes=10, blocks=1).spec
    halves = {
        frozenset([(d[0], d[2]), (d[1], d[3])])
        for d in itertools.product(range(2), range(2), range(8), range(8))
    }
    cells = np.array(list(spec.enumerate()), np.int32)
    unique = np.unique(spec.canonical(cells), axis=0)
    assert len(cells) == 256 and len(unique) == len(halves) == 136
    np.testing.assert_array_equal(unique, spec.expansions(0))


def test_unique_cells_of_two_blocks_are_the_product_of_the_expansions():
    spec = cell_spec(("cell",), 2, OPS[:2], add_only=True)
    cells = np.array(list(spec.enumerate()), np.int32)
    unique = np.unique(jax.jit(spec.canonical)(cells), axis=0)
    assert len(cells) == 16 * 36
    assert len(unique) == len(spec.expansions(0)) * len(spec.expansions(1)) == 10 * 21


# ---- cells of fewer blocks ----------------------------------------------------------


def test_the_number_of_blocks_is_the_first_decision():
    spec = pnas_cell(classes=10, fewer=True).spec
    first, second = spec.decisions[:2]
    assert first == ("blocks", tuple("12345"), "blocks", -1, ())
    assert spec.length == 21 and second.name == "cell/0/input_left"
    assert [d.node for d in spec.decisions[1:]] == [t // 4 for t in range(20)]


def test_absent_blocks_are_forced_to_their_first_choice():
    vectors = np.array(
        list(itertools.product(*map(range, FEWER.num_choices))), np.int32
    )
    legal = np.asarray(jax.jit(jax.vmap(FEWER.is_legal))(vectors))
    expected = (vectors[:, 0] == 1) | np.all(vectors[:, 5:] == 0, axis=1)
    np.testing.assert_array_equal(legal, expected)
    assert FEWER.size() == legal.sum() == 16 + 16 * 36
    mask = FEWER.legal(jnp.zeros(9, jnp.int32), 5)
    assert mask.tolist() == [True, False, False]
    with pytest.raises(ValueError, match="decision 7 'cell/1/op_left' is 1; legal: 0"):
        FEWER.validate((0, 0, 0, 0, 0, 0, 0, 1, 0))


def test_the_canonical_form_keeps_the_number_of_blocks():
    cell = jnp.array([1, 1, 0, 0, 1, 2, 2, 1, 0])
    assert FEWER.canonical(cell).tolist() == [1, 0, 1, 1, 0, 2, 2, 0, 1]
    assert FEWER.canonical(jnp.zeros(9, jnp.int32)).tolist() == [0] * 9


def test_text_holds_the_blocks_that_are_present():
    text = '{"cell": [[["identity", 0], ["sep_conv_3x3", 1]]]}'
    assert FEWER.decode(text) == (0, 0, 1, 0, 1, 0, 0, 0, 0)
    for decisions in ((0, 0, 1, 0, 1, 0, 0, 0, 0), (1, 0, 1, 0, 1, 0, 2, 0, 0)):
        assert FEWER.decode(FEWER.encode(decisions)) == decisions
    assert FEWER.encode(FEWER.decode(text)) == text
    with pytest.raises(ValueError, match="has 0 blocks; this space has 1 to 2"):
        FEWER.decode('{"cell": []}')


def test_a_combiner_in_the_text_can_only_add():
    text = '{"cell": [[["identity", 0], ["identity", 1], "%s"]]}'
    spec = cell_spec(("cell",), 1, OPS, add_only=True)
    assert spec.decode(text % "add") == (0, 1, 0, 0)
    with pytest.raises(ValueError, match="block 0 of cell 'cell' is combined by 'conc"):
        spec.decode(text % "concat")


def test_a_fixed_cell_has_only_its_blocks_and_is_both_cells(fewer):
    cells = fewer.bind(np.array([0, 0, 1, 1, 0, 0, 0, 0, 0]))
    assert len(cells["normal"]) == 1 and cells["normal"] is cells["reduce"]
    plain = pnas_cell(classes=3, blocks=1, channels=4, cells=2)
    costs = [
        count(space.module("final"), space.bind(np.array(d)), (8, 8, 3))
        for space, d in ((fewer, [0, 0, 1, 1, 0] + [0] * 4), (plain, [0, 1, 1, 0]))
    ]
    assert costs[0] == costs[1]


def test_states_of_absent_blocks_are_not_returned(fewer):
    spec = fewer.spec
    share = jax.jit(lambda d: _returned(fewer.bind(d)["normal"], None))
    for decisions in np.asarray(
        jax.vmap(spec.sample)(jax.random.split(jax.random.key(0), 8))
    ):
        fixed = _returned(fewer.bind(decisions)["normal"], None)
        padded = np.pad(fixed, (0, 4 - len(fixed)))
        np.testing.assert_array_equal(share(jnp.asarray(decisions)), padded)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"cells": 1}, "cells=1"),
        ({"blocks": 0}, "blocks=0"),
        ({"blocks": 0, "fewer": True}, "blocks=0"),
        ({"concat": (7,)}, r"concat=\(7,\): must name some of the states 0 to 6"),
        ({"concat": (6,), "fewer": True}, "must be None with fewer=True"),
    ],
)
def test_sizes_that_no_network_has_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        pnas_cell(classes=10, **arguments)


# ---- published networks -------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "params", "macs"),
    [
        ("PNASNet-5-CIFAR", 3_189_082, None),
        ("PNASNet-5-mobile", 5_064_487, 588e6),
        pytest.param("PNASNet-5-large", 86_057_668, 25.0e9, marks=pytest.mark.slow),
    ],
)
def test_pnasnet_5_has_its_published_size(name, params, macs):
    published = PUBLISHED[name]
    space = pnas_cell(**published.arguments)
    choices = space.bind(np.array(published.decisions))
    cost = count(space.module("final"), choices, published.image)
    assert cost.params == params
    if macs is not None:
        assert cost.macs == pytest.approx(macs, rel=0.005)
