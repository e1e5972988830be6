"""NAS-Bench-201: size, cell strings, exact costs, and what its two forms do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from child_models.cost import count
from child_models.spaces.nasbench201 import EDGES, OPS, PUBLISHED, SPEC, nasbench201

TEXT = (
    "|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|"
    "+|nor_conv_1x1~0|skip_connect~1|skip_connect~2|"
)
DECISIONS = (4, 2, 1, 2, 1, 1)  # row 0 of the benchmark's index
NONE, SKIP, CONV1, CONV3 = range(4)
SEED, NUM_CELLS, NUM_DIRECT = 0, 500, 6
CIFAR = (32, 32, 3)


# ---- decisions ----------------------------------------------------------------------


def test_size():
    assert SPEC.size() == 15_625
    assert [d.name for d in SPEC.decisions] == [
        "0>1",
        "0>2",
        "1>2",
        "0>3",
        "1>3",
        "2>3",
    ]


def test_text_form_by_hand():
    assert SPEC.encode(DECISIONS) == TEXT
    assert SPEC.decode(TEXT) == DECISIONS


def test_every_cell_survives_its_text():
    cells = list(SPEC.enumerate())
    texts = [SPEC.codec.encode(SPEC, cell) for cell in cells]
    assert len(set(texts)) == 15_625
    assert [tuple(SPEC.codec.decode(SPEC, t)) for t in texts] == cells


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("|none~0|+|none~0|none~1|", "not a NAS-Bench-201 cell"),
        (TEXT.replace("~2", "~1"), "not a NAS-Bench-201 cell"),
        ("x" + TEXT, "not a NAS-Bench-201 cell"),
        (
            TEXT.replace("avg_pool", "max_pool"),
            "op 'max_pool_3x3' must be one of: none",
        ),
    ],
)
def test_foreign_text_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        SPEC.decode(text)


def test_sizes_are_checked():
    with pytest.raises(ValueError, match="cells is 0; it must be at least 1"):
        nasbench201(classes=10, cells=0)


# ---- smaller spaces -----------------------------------------------------------------

SMALL = {"nodes": 3, "ops": ("none", "skip_connect", "nor_conv_3x3")}


def test_a_smaller_cell_has_its_own_size_and_text():
    spec = nasbench201(classes=3, **SMALL).spec
    assert spec.size() == 27
    cells = list(spec.enumerate())
    assert spec.encode((2, 0, 1)) == "|nor_conv_3x3~0|+|none~0|skip_connect~1|"
    texts = [spec.encode(cell) for cell in cells]
    assert [spec.decode(text) for text in texts] == cells and len(set(texts)) == 27
    with pytest.raises(ValueError, match=r"expected \|op~0\|\+\|op~0\|op~1\|$"):
        spec.decode(TEXT)
    with pytest.raises(ValueError, match="must be one of: none, skip_connect, nor_con"):
        spec.decode("|nor_conv_1x1~0|+|none~0|none~1|")


def test_the_full_space_is_the_default():
    assert nasbench201(classes=3).spec == SPEC
    assert nasbench201(classes=3, nodes=4, ops=list(OPS)).spec == SPEC


def test_a_smaller_cell_has_its_edges_and_ops_only():
    _, variables = shapes(tiny(**SMALL), "search", jnp.array([2, 1, 0]))
    cell = variables["params"]["stage_0"]
    assert set(cell) == {"edge_0_1", "edge_0_2", "edge_1_2"}
    assert cell["edge_0_1"]["branch_2"]["Conv_0"]["kernel"].shape == (2, 3, 3, 4, 4)
    _, final = shapes(tiny(**SMALL), "final", np.array([1, 0, 2]))
    assert set(final["params"]["cell_0"]) == {"edge_1_2"}


def test_dead_ends_of_a_smaller_cell():
    bind = nasbench201(classes=3, **SMALL).bind
    assert [int(c) for c in bind(jnp.array([2, 1, 0]))] == [0, 1, 0]
    assert [int(c) for c in bind(jnp.array([2, 1, 1]))] == [2, 1, 1]
    without = nasbench201(classes=3, nodes=3, ops=("skip_connect", "nor_conv_1x1"))
    assert [int(c) for c in without.bind(jnp.array([1, 0, 1]))] == [1, 0, 1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"nodes": 1}, "nodes is 1; it must be at least 2"),
        ({"ops": ()}, "ops are none given; they must be different ones of: none"),
        ({"ops": ("none",)}, "ops are none; one at least must be of: skip_connect"),
        ({"ops": ("none", "none")}, "ops are none, none; they must be different"),
        ({"ops": ("none", "conv")}, "ops are none, conv; they must be different"),
        ({"ops": "conv"}, "ops are conv; they must be different"),
    ],
)
def test_smaller_spaces_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        nasbench201(classes=3, **options)


# ---- exact costs --------------------------------------------------------------------


@pytest.fixture(scope="module")
def cost_of():
    """``(decisions) -> Cost`` of the final form at C=16, N=5."""
    space = nasbench201(classes=10, channels=16, cells=5)
    final = space.module("final")
    return lambda decisions: count(final, space.bind(np.asarray(decisions)), CIFAR)


@pytest.fixture
def table(data_file):
    """(ops[500, 6], params, macs) of random cells of the benchmark."""
    with np.load(data_file("nasbench201_table.npz")) as table:
        assert tuple(table["op_names"]) == OPS
        assert tuple(map(tuple, table["edges"])) == EDGES
        rows = np.random.default_rng(SEED).choice(15_625, NUM_CELLS, replace=False)
        return [table[name][rows] for name in ("ops", "params_cifar10", "macs_cifar10")]


def test_cost_by_hand(cost_of):
    empty, one = cost_of([NONE] * 6), cost_of([CONV3] + [NONE] * 5)
    # Stem, two residual blocks, last batch norm, classifier.
    blocks = sum(
        9 * c * 2 * c + 4 * c + 9 * 4 * c * c + 4 * c + 2 * c * c for c in (16, 32)
    )
    assert empty.params == 9 * 3 * 16 + 32 + blocks + 128 + 650
    assert empty.macs == 1024 * 432 + 2 * 256 * (9 * 512 + 9 * 1024 + 512) + 640
    # A 3x3 convolution with batch norm in five cells of each stage.
    assert one.params - empty.params == 5 * sum(9 * c * c + 2 * c for c in (16, 32, 64))
    assert one.macs - empty.macs == 5 * 3 * 1024 * 9 * 16 * 16
    assert one.params_aux == 0


@pytest.mark.data
def test_costs_of_500_cells_equal_the_table(cost_of, table):
    """A few counted, all of them as a sum over edges of prices that are counted."""
    ops, params, macs = table
    base = np.array(cost_of([NONE] * 6))
    prices = np.zeros((len(OPS), 3), int)
    for op in range(1, len(OPS)):
        prices[op] = (np.array(cost_of([op] * 6)) - base) // 6
    expected = base + prices[ops].sum(axis=1)
    np.testing.assert_array_equal(expected[:, 0], params)
    np.testing.assert_array_equal(expected[:, 2], macs)
    for cell, *known in zip(ops[:NUM_DIRECT], params, macs, strict=False):
        counted = cost_of(cell)
        assert [counted.params, counted.macs] == known


@pytest.mark.data
@pytest.mark.slow
def test_each_of_500_cells_counted_equals_the_table(cost_of, table):
    for cell, params, macs in zip(*table, strict=True):
        counted = cost_of(cell)
        assert (counted.params, counted.macs) == (params, macs), cell


@pytest.mark.data
def test_the_best_known_cell_is_the_tables(data_file):
    with np.load(data_file("nasbench201_table.npz")) as table:
        best = table["ops"][table["hp200_cifar10_test"].argmax()]
    assert PUBLISHED["NAS-Bench-201-CIFAR-10-best"].decisions == tuple(best)


# ---- the two forms ------------------------------------------------------------------


def jit(function):
    """Compiled without optimisation, which takes longer than these runs."""
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})


def tiny(**options):
    sizes = {"classes": 3, "channels": 4, "cells": 2} | options
    return nasbench201(**sizes)


def shapes(space, form, decisions, image=(8, 8, 3)):
    """(shape of logits, variables' shapes) of one form."""
    x = jax.ShapeDtypeStruct((2, *image), jnp.float32)
    net, choices = space.module(form), space.bind(decisions)
    return jax.eval_shape(
        lambda x: net.init_with_output(jax.random.key(0), choices, x, True), x
    )


def test_the_search_form_stacks_its_cells_and_the_final_form_does_not():
    _, search = shapes(tiny(), "search", jnp.asarray(DECISIONS))
    _, final = shapes(tiny(), "final", np.array(DECISIONS))
    kernel = search["params"]["stage_1"]["edge_0_2"]["branch_2"]["Conv_0"]["kernel"]
    assert kernel.shape == (2, 1, 1, 8, 8)  # two cells, 1x1, twice 4 channels
    assert not any("scale" in path for path in paths(search["params"]["stage_1"]))
    for i, width in enumerate((4, 4, 8, 8, 16, 16)):
        edge = final["params"][f"cell_{i}"]["edge_0_2"]["branch_2"]
        assert edge["Conv_0"]["kernel"].shape == (1, 1, width, width)
        assert edge["BatchNorm_0"]["scale"].shape == (width,)


def paths(tree):
    return [
        jax.tree_util.keystr(p) for p, _ in jax.tree_util.tree_leaves_with_path(tree)
    ]


def test_affine_is_of_the_search_forms_cells():
    _, search = shapes(tiny(affine=True), "search", jnp.asarray(DECISIONS))
    assert any("scale" in path for path in paths(search["params"]["stage_1"]))


@pytest.mark.parametrize("size", [28, 30, 33])
def test_sizes_that_do_not_halve_evenly(size):
    logits, _ = shapes(tiny(cells=1), "final", np.array(DECISIONS), (size, size, 1))
    assert logits.shape == (2, 3)


def test_bfloat16_keeps_parameters_and_logits_in_float32():
    logits, variables = shapes(tiny(dtype="bfloat16"), "search", jnp.asarray(DECISIONS))
    assert {leaf.dtype for leaf in jax.tree.leaves((logits, variables))} == {
        jnp.dtype("float32")
    }


def test_the_final_form_takes_fixed_decisions_only():
    with pytest.raises(ValueError, match="takes fixed decisions only"):
        shapes(tiny(), "final", jnp.asarray(DECISIONS))


@pytest.mark.parametrize(
    ("decisions", "bound"),
    [
        ([1, 2, 3, 1, 0, 4], [1, 2, 3, 1, 0, 4]),
        ([1, 2, 0, 1, 0, 4], [0, 2, 0, 1, 0, 4]),  # node 1 reaches nothing
        ([1, 2, 3, 1, 4, 0], [1, 0, 0, 1, 4, 0]),  # node 2
        ([1, 2, 3, 1, 0, 0], [0, 0, 0, 1, 0, 0]),  # both: 1 reaches only 2
    ],
)
def test_a_sampled_child_runs_no_edge_that_reaches_nothing(decisions, bound):
    bind = nasbench201(classes=3).bind
    assert [int(c) for c in bind(jnp.array(decisions))] == bound
    assert bind(np.array(decisions)) == tuple(decisions)  # of a fixed one XLA sees it


def test_remat_changes_no_gradient():
    x = jax.random.normal(jax.random.key(1), (2, 8, 8, 3))
    plain, remat = (tiny(remat=r).module("search") for r in (False, True))
    choices = SPEC.validate(DECISIONS)
    variables = jit(lambda key: plain.init(key, choices, x))(jax.random.key(0))

    def gradient(net):
        def loss(params):
            logits = net.apply({"params": params}, choices, x)
            return jnp.sum(jnp.sin(logits))

        return jit(jax.grad(loss))(variables["params"])

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        gradient(plain),
        gradient(remat),
    )


def test_drop_path_of_the_final_form_spares_skips():
    space = tiny(cells=1)
    net, x = space.module("final"), jax.random.normal(jax.random.key(1), (4, 8, 8, 3))

    def changes(decisions):
        """Whether dropping paths changes the logits."""
        choices = space.bind(np.array(decisions))

        @jit
        def run(key):
            variables = net.init(jax.random.key(0), choices, x)
            plain, dropped = (
                net.apply(variables, choices, x, True, p, rngs={"dropout": key})
                for p in (0.0, 0.9)
            )
            return jnp.abs(plain - dropped).max()

        return float(run(jax.random.key(2))) > 1e-3

    assert not changes([SKIP] * 6)
    assert changes([CONV1] + [SKIP] * 5)
