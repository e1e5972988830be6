"""The NASNet space: sizes, published counts, text, layout, drop-path.

That the bindings of the search form agree is tested with those of the other spaces.
"""

import importlib
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from child_models.cost import count
from child_models.genotype import Block, unused_states
from child_models.spaces.nasnet import PUBLISHED, nasnet
from child_models.spaces.nasnet_final import (
    FinalCell,
    drop_probability,
    layout,
)
from child_models.spaces.nasnet_ops import IDENTITY, KNOWN_OPS, OPS, operation
from child_models.spaces.nasnet_search import _numbered, _returned
from child_models.spaces.repeated import unstack


@pytest.fixture(scope="module")
def tiny():
    return nasnet(classes=3, blocks=2, channels=4, cells=2)


def published_cost(name, **overrides):
    published = PUBLISHED[name]
    space = nasnet(**{**published.arguments, **overrides})
    choices = space.bind(np.array(published.decisions))
    return count(space.module("final"), choices, published.image)


# ---- decisions ----------------------------------------------------------------------


def test_fifty_decisions_and_exact_size():
    spec = nasnet(classes=10).spec
    assert spec.length == 50
    cell = math.prod((2 + b) ** 2 * 13**2 * 2 for b in range(5))
    assert spec.size() == cell**2
    assert cell / 1e18 == pytest.approx(2.287, abs=5e-4)
    assert len(set(OPS)) == 13


def test_nodes_and_targets_number_the_blocks_of_both_cells():
    spec = nasnet(classes=10, blocks=3).spec
    inputs = [d for d in spec.decisions if d.group == "input"]
    assert [d.node for d in inputs] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    assert inputs[4].targets == (-1, -2, 0, 1)
    assert inputs[-1].targets == (-1, -2, 3, 4)


def test_sampled_cells_use_earlier_states_only():
    space = nasnet(classes=10)
    sample = jax.jit(jax.vmap(space.spec.sample))
    for decisions in np.asarray(sample(jax.random.split(jax.random.key(0), 200))):
        for blocks in space.bind(decisions).values():
            for b, block in enumerate(blocks):
                assert max(block.inputs) < b + 2
            assert len(blocks) + 1 in unused_states(blocks)


# ---- text ---------------------------------------------------------------------------


def test_text_round_trips():
    spec = nasnet(classes=10, blocks=3).spec
    for key in jax.random.split(jax.random.key(1), 5):
        decisions = tuple(spec.sample(key).tolist())
        assert spec.decode(spec.encode(decisions)) == decisions


def test_text_is_the_published_genotype():
    spec = nasnet(classes=10).spec
    text = spec.encode(PUBLISHED["NASNet-A-CIFAR"].decisions)
    assert text.startswith(
        '{"normal": [[["sep_conv_5x5", 0], ["sep_conv_3x3", 1], "add"],'
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nonsense", "not a JSON genotype"),
        ('{"normal": []}', "cells normal, reduce"),
        ('{"normal": [], "reduce": []}', "has 0 blocks; this space has 1"),
        ('{"normal": [["conv", 0]], "reduce": []}', "block 0 of cell 'normal'"),
        (
            '{"normal": [[["conv_9x9", 0], ["identity", 0], "add"]],'
            ' "reduce": [[["identity", 0], ["identity", 0], "add"]]}',
            "'normal/0/op_left' is 'conv_9x9'; legal: identity",
        ),
        (
            '{"normal": [[["identity", 2], ["identity", 0], "add"]],'
            ' "reduce": [[["identity", 0], ["identity", 0], "add"]]}',
            "'normal/0/input_left' is 2; legal: 0",
        ),
        (
            '{"normal": [[["identity", "0"], ["identity", 0], "add"]],'
            ' "reduce": [[["identity", 0], ["identity", 0], "add"]]}',
            "not a state",
        ),
    ],
)
def test_foreign_text_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        nasnet(classes=10, blocks=1).spec.decode(text)


# ---- the final form -----------------------------------------------------------------


def test_nasnet_a_mobile_has_its_published_size():
    cost = published_cost("NASNet-A-mobile")
    assert cost.params == 5_289_978
    assert cost.macs == pytest.approx(564e6, rel=0.01)


def test_nasnet_a_cifar_has_its_published_size():
    cost = published_cost("NASNet-A-CIFAR", aux_head=True)
    assert cost.params == 3_346_538
    # 1x1 from 6 * 64 to 128 and 4x4 to 768, each with batch norm; linear
    assert cost.params_aux == 384 * 128 + 2 * 128 + 16 * 128 * 768 + 2 * 768 + 7690


@pytest.mark.slow
def test_nasnet_a_large_has_its_published_size():
    cost = published_cost("NASNet-A-large")
    assert round(cost.params / 1e6, 1) in (88.7, 88.8, 88.9)
    assert cost.macs == pytest.approx(23.8e9, rel=0.01)


def test_concat_combiner_builds_and_costs_a_1x1_convolution(tiny):
    add = np.zeros(20, np.int32)
    concat = add.copy()
    concat[4] = 1  # the first block of the normal cell
    final = tiny.module("final")
    sizes = [count(final, tiny.bind(d), (8, 8, 3)).params for d in (add, concat)]
    widths = (8, 16)  # of the two normal cells
    assert sizes[1] - sizes[0] == sum(2 * f * f + 2 * f for f in widths)


def test_final_form_takes_fixed_choices_only(tiny):
    with pytest.raises(ValueError, match="fixed choices only"):
        tiny.module("final").init(
            jax.random.key(0),
            tiny.bind(jnp.zeros(20, jnp.int32)),
            jnp.ones((1, 8, 8, 3)),
            True,
        )


def test_a_reduction_precedes_the_cells_at_one_and_two_thirds():
    kinds = "".join(layer.cell[0] for layer in layout(6, "cifar", False))
    assert kinds == "nnrnnrnn"
    layers = layout(12, "imagenet", True)
    assert [layer.width for layer in layers[:3]] == [1 / 4, 1 / 2, 1]
    assert [layer.width for layer in layers if layer.cell == "reduce"] == [
        1 / 4,
        1 / 2,
        2,
        4,
    ]
    assert [layer.previous for layer in layers[6:8]] == [-2, -3]
    assert [i for i, layer in enumerate(layers) if layer.auxiliary] == [10]
    within = layout(9, "cifar", reductions_within=True)
    assert "".join(layer.cell[0] for layer in within) == "nnnrnnrnn"
    assert [layer.width for layer in within] == [1, 1, 1, 2, 2, 2, 4, 4, 4]
    assert {layer.previous for layer in within} == {-2} and within[5].auxiliary


@pytest.mark.parametrize("name", KNOWN_OPS)
def test_every_op_strides_and_widens(name):
    module = operation(name, inputs=4, features=8, strides=2, train=True)()
    shape = jax.eval_shape(
        lambda x: module.init_with_output(jax.random.key(0), x)[0],
        jnp.ones((2, 7, 7, 4)),
    )
    assert shape.shape == (2, 4, 4, 8)


# ---- ScheduledDropPath --------------------------------------------------------------


def test_drop_path_schedule():
    layers = 20
    assert drop_probability(0.4 * 0.0, layers - 1, layers) == 0  # step 0
    assert 1 - drop_probability(0.4 * 1.0, layers - 1, layers) == pytest.approx(0.6)
    assert 1 - drop_probability(0.4 * 1.0, 0, layers) == pytest.approx(1 - 0.4 / 20)


@pytest.mark.parametrize("progress", [0.0, 0.5, 1.0])
def test_cells_drop_paths_by_their_place_in_the_network(monkeypatch, progress):
    """None at step 0; the last cell keeps 0.6 of them at the last step."""
    module = importlib.import_module("child_models.spaces.nasnet_final")
    seen = []
    monkeypatch.setattr(
        module, "drop_path", lambda x, drop, key: seen.append(drop) or x
    )
    space = nasnet(classes=3, blocks=1, channels=4, cells=3)
    pool = OPS.index("max_pool_3x3")
    choices = space.bind(np.array([0, 1, pool, pool, 0] * 2))
    keys = {name: jax.random.key(0) for name in ("params", "dropout")}
    jax.eval_shape(
        lambda x: space.module("final").init(keys, choices, x, True, 0.4 * progress),
        jnp.ones((2, 8, 8, 3)),
    )
    # Three normal cells and two reductions, of two ops each.
    keep = 1 - progress * np.arange(1, 6) / 5 * (1 - 0.6)
    np.testing.assert_allclose(1 - np.array(seen), np.repeat(keep, 2), rtol=1e-6)


def test_drop_path_acts_on_every_op_but_the_identity():
    pool, identity = OPS.index("max_pool_3x3"), OPS.index(IDENTITY)
    blocks = (Block((1, 1), (pool, identity), 0),)
    cell = FinalCell(OPS, 4, 1, None, True)
    # State 0 is unused, and returned beside the block's; state 1 is ones.
    x = jnp.ones((256, 2, 2, 4))
    variables = cell.init(jax.random.key(0), blocks, x, x, 0.0)
    out = cell.apply(
        variables,
        blocks,
        x,
        x,
        0.25,
        rngs={"dropout": jax.random.key(1)},
        mutable=["batch_stats"],
    )[0]
    block = np.asarray(out[..., 4:])
    assert np.allclose(block, block[:, :1, :1, :1])  # whole samples
    dropped = np.isclose(block[:, 0, 0, 0], 1.0)
    assert np.allclose(block[~dropped, 0, 0, 0], 1 + 1 / 0.75)
    assert abs(dropped.mean() - 0.25) < 4 * math.sqrt(0.25 * 0.75 / 256)


# ---- the search form ----------------------------------------------------------------


def test_returned_states_are_those_that_the_fixed_child_leaves_unused(tiny):
    spec = tiny.spec
    share = jax.jit(lambda d: _returned(tiny.bind(d)["reduce"], None))
    relaxed = jax.jit(
        lambda w, live: _returned(
            tiny.bind({"weights": w, "live": live})["reduce"], None
        )
    )
    for key in jax.random.split(jax.random.key(2), 10):
        decisions = spec.sample(key)
        fixed = _returned(tiny.bind(np.asarray(decisions))["reduce"], None)
        weights = spec.one_hot(decisions)
        live = jax.tree.map(lambda w: w > 0, weights)
        np.testing.assert_array_equal(share(decisions), fixed)
        np.testing.assert_array_equal(relaxed(weights, live), fixed)


def test_fixed_child_holds_the_chosen_slices():
    shared = {
        "stage_1": {
            "cells": {"blocks": {"sides": {"k": jnp.arange(48).reshape(3, 4, 2, 2)}}}
        }
    }
    wanted = {"stage_1": {"cells_2": {"blocks_3": {"sides_1": {"k": jnp.ones(2)}}}}}
    child = unstack(shared, wanted)
    assert child["stage_1"]["cells_2"]["blocks_3"]["sides_1"]["k"].tolist() == [46, 47]


def test_input_choices_are_padded_to_all_states(tiny):
    weights = tiny.spec.one_hot(jnp.zeros(20, jnp.int32))
    live = jax.tree.map(jnp.ones_like, weights)
    blocks = tiny.bind({"weights": weights, "live": live})["normal"]
    _, stacked, _ = _numbered(blocks)
    assert stacked.inputs[0].weight.shape == (2, 4)
    assert not stacked.inputs[0].live[0, 2:].any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"cells": 1}, "cells=1"),
        ({"blocks": 0}, "blocks=0"),
        ({"stem": "mnist"}, "one of cifar, imagenet"),
        ({"normal_concat": (7,)}, r"normal_concat=\(7,\): .* states 0 to 6"),
        ({"ops": ("conv_9x9",)}, "ops has 'conv_9x9'; known: identity"),
        ({"dropout": 1.0}, "dropout=1.0"),
    ],
)
def test_sizes_that_no_network_has_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        nasnet(classes=10, **arguments)
