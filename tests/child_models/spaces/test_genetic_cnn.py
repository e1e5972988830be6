"""Genetic CNN: sizes, codes, wiring, convolutions and parameters by hand."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from child_models.choice import Weighted
from child_models.cost import count
from child_models.spaces.genetic_cnn import genetic_cnn, pairs, wire

SMALL = {"nodes": (3, 2), "channels": (4, 6), "kernel": 3, "hidden": 5}


def all_bits(nodes):
    return itertools.product((0, 1), repeat=len(pairs(nodes)))


def active_nodes(nodes, bits):
    """Nodes that any bit names."""
    set_bits = [p for p, bit in zip(pairs(nodes), bits, strict=True) if bit]
    return {node for pair in set_bits for node in pair}


# ---- decisions ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("nodes", "size"), [((3, 5), 8_192), ((3, 4, 5), 524_288), ((4,), 64)]
)
def test_sizes(nodes, size):
    spec = genetic_cnn(classes=10, nodes=nodes, channels=(8,) * len(nodes)).spec
    assert spec.size() == size == 2**spec.length


def test_codes_and_decisions_correspond_one_to_one():
    spec = genetic_cnn(classes=10, nodes=(3, 5), channels=(8, 16)).spec
    codec, codes = spec.codec, set()
    for decisions in itertools.product((0, 1), repeat=13):
        code = codec.encode(spec, decisions)
        assert tuple(codec.decode(spec, code)) == decisions
        codes.add(code)
    assert len(codes) == 8_192


def test_a_code_has_its_bits_by_target():
    spec = genetic_cnn(classes=10, nodes=(4, 3), channels=(8, 16)).spec
    names = [d.name for d in spec.decisions]
    by_target = ["1-2", "1-3", "2-3", "1-4", "2-4", "3-4"]
    assert names[:6] == [f"stage_1/{pair}" for pair in by_target]
    assert names[6:] == [f"stage_2/{pair}" for pair in by_target[:3]]
    decisions = (1, 0, 1, 1, 0, 0, 0, 1, 0)
    assert spec.encode(decisions) == "1-01-100 | 0-10"
    for text in ("1-01-100 | 0-10", "1-01-100|0-10", " 1-01-100 |0-10\n"):
        assert spec.decode(text) == decisions


@pytest.mark.parametrize("text", ["1-01-100", "1-01-100 | 0-1", "1-01-102 | 0-10", ""])
def test_foreign_text_is_refused(text):
    spec = genetic_cnn(classes=10, nodes=(4, 3), channels=(8, 16)).spec
    with pytest.raises(ValueError, match=r"expected b-bb-bbb \| b-bb, each b 0 or 1"):
        spec.decode(text)


def test_a_policy_sees_which_node_a_bit_reads():
    spec = genetic_cnn(classes=10, nodes=(3, 3), channels=(8, 16)).spec
    seen = [(d.node, d.targets[0]) for d in spec.decisions]
    assert seen == [(0, -1), (1, -1), (1, 0), (2, -2), (3, -2), (3, 2)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"classes": 0}, "classes has 0; it must be at least 1"),
        ({"nodes": (3, 1)}, "nodes has 1; it must be at least 2"),
        ({"channels": (8, 0)}, "channels has 0; it must be at least 1"),
        ({"channels": (8,)}, r"channels is \(8,\); both need one number a stage"),
        ({"kernel": 4}, "kernel is 4; it must be odd"),
        ({"hidden": -1}, "hidden has -1; it must be at least 0"),
        ({"dropout": 1.0}, r"dropout is 1.0; it must be in \[0, 1\)"),
    ],
)
def test_bad_sizes_are_refused(arguments, message):
    sizes = {"classes": 10, "nodes": (3, 5), "channels": (8, 16), **arguments}
    with pytest.raises(ValueError, match=message):
        genetic_cnn(**sizes)


# ---- wiring -------------------------------------------------------------------------


@pytest.mark.parametrize("nodes", [2, 3, 4, 5])
def test_every_code_wires_a_graph_with_one_source_and_one_sink(nodes):
    for bits in all_bits(nodes):
        wiring, active = wire(nodes, bits), active_nodes(nodes, bits)
        assert {j for j, there in enumerate(wiring.active, start=1) if there} == active
        edges = {p for p, bit in wiring.edges.items() if bit}
        edges |= {(0, j) for j, w in enumerate(wiring.from_input, start=1) if w}
        edges |= {(j, 99) for j, w in enumerate(wiring.to_output, start=1) if w}
        assert wiring.empty == (not active)
        assert {node for edge in edges for node in edge} == (
            active | {0, 99} if active else set()
        )
        # Edges go up, so there is no cycle; only 0 has no predecessor, only 99 no
        # successor.
        assert all(i < j for i, j in edges)
        assert {j for _, j in edges} == (active | {99} if active else set())
        assert {i for i, _ in edges} == (active | {0} if active else set())


def test_relaxed_coefficients_are_probabilities_of_independent_bits():
    p = np.random.default_rng(0).uniform(size=6).astype(np.float32)
    live = jnp.ones(2, bool)
    relaxed = wire(4, [Weighted(jnp.array([1 - q, q]), live) for q in p])
    expected = np.zeros(len(jax.tree.leaves(relaxed)))
    for bits in all_bits(4):
        chance = np.prod(np.where(bits, p, 1 - p))
        expected += chance * np.array(jax.tree.leaves(wire(4, bits)), float)
    np.testing.assert_allclose(jax.tree.leaves(relaxed), expected, rtol=1e-5, atol=1e-7)


# ---- networks -----------------------------------------------------------------------


def kernels(space, decisions):
    """Convolutions of each stage of the final form."""
    net, choices = space.module("final"), space.bind(np.asarray(decisions))
    x = jax.ShapeDtypeStruct((2, 8, 8, 3), jnp.float32)
    shapes = jax.eval_shape(
        lambda x: net.init(jax.random.key(0), choices, x, True)["params"], x
    )
    paths = [p for p in traverse_util.flatten_dict(shapes) if p[-1] == "kernel"]
    return [sum(p[0] == f"stage_{s}" for p in paths) for s in (1, 2)]


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("0-00 | 0-00", [1, 1]),
        ("1-00 | 0-00", [4, 1]),
        ("1-01 | 0-10", [5, 4]),
        ("0-01 | 1-11", [4, 5]),
    ],
)
def test_a_stage_has_a_convolution_for_each_active_node_and_two_more(code, expected):
    space = genetic_cnn(classes=3, **{**SMALL, "nodes": (3, 3)})
    assert kernels(space, space.spec.decode(code)) == expected


def test_parameters_and_multiply_adds_of_a_final_network():
    space = genetic_cnn(classes=3, **SMALL)
    choices = space.bind(np.array(space.spec.decode("1-00 | 0")))
    cost = count(space.module("final"), choices, (8, 8, 3))
    norm = 2 * 4
    stage_1 = (27 * 4 + norm) + 3 * (36 * 4 + norm)  # input; two nodes and output
    stage_2 = 36 * 6 + 2 * 6  # one convolution, after the pool on 4 x 4 pixels
    head = (2 * 2 * 6 * 5 + 5) + (5 * 3 + 3)
    assert cost.params == stage_1 + stage_2 + head
    macs = 64 * (27 * 4 + 3 * 36 * 4) + 16 * 36 * 6 + 2 * 2 * 6 * 5 + 5 * 3
    assert cost.macs == macs


def test_the_search_network_of_the_paper_has_its_sizes():
    space = genetic_cnn(classes=10)
    choices = space.bind(np.zeros(19, int))
    cost = count(space.module("final"), choices, (32, 32, 3))
    convolutions = 25 * (3 * 8 + 8 * 16 + 16 * 32) + 2 * (8 + 16 + 32)
    assert cost.params == convolutions + (4 * 4 * 32 * 128 + 128) + (128 * 10 + 10)


def test_the_graph_is_what_the_network_computes():
    """A stage of the code 1-00: input, 1, 2 in a chain, output; node 3 is absent."""
    space = genetic_cnn(classes=3, **{**SMALL, "nodes": (3, 2)})
    decisions = np.array(space.spec.decode("1-00 | 0"))
    net, choices = space.module("final"), space.bind(decisions)
    x = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
    shapes = jax.eval_shape(lambda: net.init(jax.random.key(0), choices, x, True))
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda s: jnp.asarray(rng.normal(size=s.shape), jnp.float32), shapes["params"]
    )

    def node(weights, x):
        weights = weights.get("branch_1", weights)
        y = jax.lax.conv_general_dilated(
            x,
            weights["Conv_0"]["kernel"],
            (1, 1),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        y = (y - y.mean((0, 1, 2), keepdims=True)) / jnp.sqrt(
            y.var((0, 1, 2), keepdims=True) + 1e-5
        )
        scale, bias = (
            weights["BatchNorm_0"][k].reshape(1, 1, 1, -1) for k in ("scale", "bias")
        )
        return jax.nn.relu(scale * y + bias)

    def pool(x):
        pads = [(0, 0), (1, 1), (1, 1), (0, 0)]
        x = jnp.pad(x, pads, constant_values=-jnp.inf)
        window, strides = (1, 3, 3, 1), (1, 2, 2, 1)
        return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, strides, "VALID")

    def by_hand(params, x):
        for name in ("input", "node_1", "node_2", "output"):
            x = node(params["stage_1"][name], x)
        x = pool(node(params["stage_2"]["input"], pool(x)))
        x = x.reshape(2, -1) @ params["hidden"]["kernel"]
        x = jax.nn.relu(x + params["hidden"]["bias"][None])
        return x @ params["classifier"]["kernel"] + params["classifier"]["bias"][None]

    logits = jax.jit(lambda p, x: net.apply({"params": p}, choices, x, True))(params, x)
    expected = jax.jit(by_hand)(params, x)
    np.testing.assert_allclose(logits, expected, atol=1e-4 * np.abs(expected).max())


def test_the_final_form_refuses_sampled_decisions():
    space = genetic_cnn(classes=3, **SMALL)
    with pytest.raises(ValueError, match="fixed decisions only"):
        space.module("final").init(
            jax.random.key(0),
            space.bind(jnp.zeros(4, jnp.int32)),
            jnp.zeros((1, 8, 8, 3)),
        )
