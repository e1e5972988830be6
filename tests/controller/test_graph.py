"""Graphs, their mutations and their texts."""

import json
import math

import jax
import numpy as np
import pytest

from controller.graph import ACTIVATIONS, Graph, Layer, insert, remove
from controller.graph_mutations import (
    MUTATIONS,
    generator,
    mutate,
    nearest,
    nearest_odd,
    nearest_power,
)
from controller.graph_spec import GraphSpec, stack, trim

SEED_GRAPH = Graph(0.1)
SPEC = GraphSpec(SEED_GRAPH)
CHAINS = 1000


def conv(id, **numbers):
    return Layer(id, "conv", **{"height": 3, "width": 3, "channels": 8} | numbers)


THREE = Graph(0.1, (conv(0), Layer(1, "identity"), conv(2)), ((0, 2), (1, 3)))


def grown(seed, steps):
    """A graph after some mutations, and their names."""
    key, graph, names = jax.random.key(seed), SEED_GRAPH, []
    for step in range(steps):
        name, graph = mutate(jax.random.fold_in(key, step), graph, 3)
        names.append(name)
    return graph, names


@pytest.fixture(scope="module")
def chains():
    """The ends of `CHAINS` chains of mutations, by NumPy's generator alone: quickly."""
    rng = np.random.default_rng(0)
    ends = []
    for _ in range(CHAINS):
        graph = SEED_GRAPH
        for _ in range(int(rng.integers(1, 40))):
            name = str(rng.choice(list(MUTATIONS)))
            graph = MUTATIONS[name](rng, graph, 3) or graph
        ends.append(graph)
    return ends


# ---- the mutations ------------------------------------------------------------------


def test_there_are_the_eleven_mutations_of_the_paper():
    assert list(MUTATIONS) == [
        "alter_learning_rate",
        "identity",
        "reset_weights",
        "insert_convolution",
        "remove_convolution",
        "alter_stride",
        "alter_number_of_channels",
        "filter_size",
        "insert_one_to_one",
        "add_skip",
        "remove_skip",
    ]


def test_chains_of_mutations_lead_to_graphs_whose_shapes_resolve(chains):
    """A graph checks itself when it is made; here also by its shapes and its text."""
    for graph in chains:
        height, width, channels = 32, 32, 3
        for layer in graph.layers:
            if layer.op == "conv":
                height, width = (-(-n // layer.stride) for n in (height, width))
                channels = layer.channels
            assert min(height, width, channels) >= 1
        assert all(source < target for source, target in graph.skips)  # no cycle
        decisions = SPEC.pack(graph)
        assert SPEC.unpack(decisions) == graph
        assert SPEC.decode(SPEC.encode(decisions)) == SPEC.validate(decisions)
    assert max(len(graph.layers) for graph in chains) > 5
    assert max(len(graph.skips) for graph in chains) > 2


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_mutation_changes_what_its_name_says_and_nothing_else(name):
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(60):
        child = MUTATIONS[name](rng, THREE, 3)
        layers = {layer.id: layer for layer in child.layers}
        old = {layer.id: layer for layer in THREE.layers}
        kept = [old[i] for i in old if i in layers and layers[i] == old[i]]
        rate = child.learning_rate == THREE.learning_rate
        seen.add((rate, len(child.layers) - 3, len(child.skips) - 2, len(kept)))
    assert (
        seen
        <= {
            "alter_learning_rate": {(False, 0, 0, 3)},
            "identity": {(True, 0, 0, 3)},
            "reset_weights": {(True, 0, 0, 3)},
            "insert_convolution": {(True, 1, 0, 3)},
            "remove_convolution": {(True, -1, 0, 2), (True, -1, -1, 2)},
            "alter_stride": {(True, 0, 0, 2), (True, 0, 0, 3)},
            "alter_number_of_channels": {(True, 0, 0, 2), (True, 0, 0, 3)},
            "filter_size": {(True, 0, 0, 2), (True, 0, 0, 3)},
            "insert_one_to_one": {(True, 1, 0, 3)},
            "add_skip": {(True, 0, 1, 3)},
            "remove_skip": {(True, 0, -1, 3)},
        }[name]
    )


def test_an_inserted_convolution_keeps_channels_and_has_what_the_paper_says():
    rng = np.random.default_rng(0)
    made = [MUTATIONS["insert_convolution"](rng, SEED_GRAPH, 3) for _ in range(40)]
    layers = [graph.layers[0] for graph in made]
    assert {layer[:4] for layer in layers} == {(0, "conv", 3, 3)}
    assert {layer.stride for layer in layers} == {1, 2}
    assert {layer.channels for layer in layers} == {3}
    assert {layer.activation for layer in layers} == set(ACTIVATIONS)
    wide = Graph(0.1, (conv(0, channels=24),))
    made = [MUTATIONS["insert_convolution"](rng, wide, 3) for _ in range(40)]
    channels = {g.layers.index(g.layers[-1]) and g.layers[1].channels for g in made}
    assert channels == {24}


@pytest.mark.parametrize("place", range(4))
def test_removing_what_was_inserted_restores_the_graph(place):
    assert remove(insert(THREE, place, conv(9)), place) == THREE


def test_removing_a_layer_joins_the_skips_of_its_vertices():
    assert remove(THREE, 1) == Graph(0.1, (conv(0), conv(2)), ((0, 1), (1, 2)))
    assert remove(Graph(0.1, (conv(0),), ((0, 1),)), 0) == SEED_GRAPH


def test_removing_the_skip_that_was_added_restores_the_graph():
    rng = np.random.default_rng(0)
    bare = Graph(0.1, THREE.layers)
    for _ in range(20):
        added = MUTATIONS["add_skip"](rng, bare, 3)
        assert len(added.skips) == 1
        assert MUTATIONS["remove_skip"](rng, added, 3) == bare


def test_what_does_not_apply_is_not_drawn():
    for name in ("remove_convolution", "alter_stride", "filter_size", "add_skip"):
        assert MUTATIONS[name](np.random.default_rng(0), SEED_GRAPH, 3) is None
    names = {mutate(jax.random.key(i), SEED_GRAPH, 3)[0] for i in range(60)}
    assert names == {
        "alter_learning_rate",
        "identity",
        "reset_weights",
        "insert_convolution",
        "insert_one_to_one",
    }


def test_each_mutation_is_equally_likely_where_all_apply():
    names = [mutate(jax.random.key(i), THREE, 3)[0] for i in range(660)]
    counts = [names.count(name) for name in MUTATIONS]
    assert max(abs(n - 60) for n in counts) < 4 * math.sqrt(60)


def test_a_mutation_depends_on_its_key_and_graph_alone():
    assert grown(3, 25) == grown(3, 25)
    assert grown(3, 25) != grown(4, 25)


def test_numbers_change_by_at_most_a_factor_of_two():
    rng = generator(jax.random.key(0))
    altered = MUTATIONS["alter_learning_rate"]
    factors = [altered(rng, SEED_GRAPH, 3).learning_rate / 0.1 for _ in range(500)]
    logs = np.log2(factors)
    assert np.abs(logs).max() <= 1 and abs(logs.mean()) < 0.1
    assert abs(logs.std() - 1 / math.sqrt(3)) < 0.05  # log-uniform


@pytest.mark.parametrize(
    "rounded, cases",
    [
        (nearest, {0.3: 1, 1.4: 1, 1.6: 2, 8.4: 8}),
        (nearest_odd, {0.5: 1, 1.7: 1, 1.8: 3, 3.8: 3, 4.0: 5, 6.0: 7}),
        (nearest_power, {0.5: 1, 1.4: 1, 1.5: 2, 2.8: 2, 2.9: 4, 8.0: 8}),
    ],
)
def test_numbers_are_rounded_to_legal_ones(rounded, cases):
    assert {value: rounded(value) for value in cases} == cases


# ---- the specification --------------------------------------------------------------


def test_a_space_of_graphs_is_infinite_and_hashable():
    assert SPEC.size() == math.inf
    assert hash(SPEC) == hash(GraphSpec(Graph(0.1)))


def test_samples_and_mutants_are_graphs():
    key = jax.random.key(2)
    sample = SPEC.sample(key)
    np.testing.assert_array_equal(sample, SPEC.sample(key))
    assert SPEC.unpack(SPEC.mutate(key, sample))
    assert len({SPEC.encode(SPEC.sample(jax.random.key(i))) for i in range(8)}) == 8


def test_what_fills_up_a_vector_does_not_count():
    vectors = [SPEC.pack(SEED_GRAPH), SPEC.pack(THREE)]
    table = stack(vectors)
    assert table.shape == (2, 3 + 7 * 3 + 2 * 2) and table.dtype == np.int32
    assert trim(table[0]) == SPEC.validate(table[0]) == tuple(vectors[0])
    assert SPEC.unpack(table[0]) == SEED_GRAPH and SPEC.unpack(table[1]) == THREE


def test_texts_are_short_and_exact():
    text = SPEC.encode(SPEC.pack(Graph(0.1, (Layer(0, "identity"),))))
    assert text == (
        '{"learning_rate": 0.1, "layers": '
        '[{"id": 0, "op": "identity", "activation": "linear"}], "skips": []}'
    )
    third = Graph(1 / 3)
    assert third.learning_rate == 0.33333334
    assert SPEC.unpack(SPEC.decode(SPEC.encode(SPEC.pack(third)))) == third
    terse = '{"learning_rate": 1, "layers": [{"op": "conv", "channels": 2}]}'
    assert SPEC.parse(terse) == Graph(1.0, (Layer(0, "conv", channels=2),))


@pytest.mark.parametrize(
    "text, message",
    [
        ("no graph", "not the JSON of a graph: 'no graph'"),
        ("[]", "a graph must be a JSON object"),
        ("{}", "a graph has no 'learning_rate'"),
        ('{"learning_rate": 1, "layers": 3}', "layers must be a list, got 3"),
        ('{"learning_rate": "x", "layers": []}', "learning_rate is 'x'; .* a number"),
        ('{"learning_rate": 0, "layers": []}', "learning_rate is 0; it must be a po"),
        ('{"learning_rate": 1e300, "layers": []}', "learning_rate is 1e.300; it must"),
        ('{"learning_rate": NaN, "layers": []}', "learning_rate is nan; it must be"),
        ('{"learning_rate": 1, "layers": [], "lairs": 1}', "no key 'lairs'; known: "),
    ],
)
def test_a_text_that_is_no_graph_is_told_why(text, message):
    with pytest.raises(ValueError, match=message) as error:
        SPEC.decode(text)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "layers, skips, message",
    [
        ([{"channels": 3}], [], "layer 0 has no 'op'"),
        ([{"op": "conv", "chanels": 3}], [], "layer 0 has no key 'chanels'; known"),
        ([{"op": "pool"}], [], "layer 0: op is 'pool'; known: identity, conv"),
        ([{"op": "conv", "height": 2}], [], "filter is 2x1; both must be odd"),
        ([{"op": "conv", "stride": 3}], [], "stride is 3; it must be a power of 2"),
        ([{"op": "conv", "channels": 0}], [], "channels is 0; it must be an integer"),
        ([{"op": "conv", "channels": True}], [], "channels is True; it must be an in"),
        ([{"op": "conv", "channels": 1.5}], [], "channels is 1.5; it must be an int"),
        ([{"op": "conv", "activation": "x"}], [], "activation is 'x'; known: linear"),
        ([{"op": "conv", "id": 1}, {"op": "conv", "id": 1}], [], r"repeat: \[1\]"),
        ([{"op": "conv"}], [[1, 0]], "skip 1 -> 0: it must lead forwards"),
        ([{"op": "conv"}], [[0, 2]], "skip 0 -> 2: .* vertices 0 to 1"),
        ([{"op": "conv"}], [[0]], r"skip 0 must be a list of 2 integers, got \[0\]"),
        ([{"op": "conv"}], [[0, 1], [0, 1]], "must be sorted and distinct"),
    ],
)
def test_a_bad_graph_is_told_why(layers, skips, message):
    content = {"learning_rate": 0.1, "layers": layers, "skips": skips}
    with pytest.raises(ValueError, match=message):
        SPEC.decode(json.dumps(content))


@pytest.mark.parametrize(
    "decisions, message",
    [
        ([1, 2], "2 integers are no graph of 2 layers and 0 skips, which has 17"),
        ([0, 0, 0], "learning_rate is 0.0"),
        ([[1]], r"a graph is a vector of integers, got int64\(1, 1\)"),
        ([0.5, 0, 0], "vector of integers, got float64"),
        ([1036831949, 1, 0, 0, 7, 1, 1, 1, 1, 0], "op is 'number 7'; known"),
    ],
)
def test_integers_that_are_no_graph_are_told_why(decisions, message):
    with pytest.raises(ValueError, match=message):
        SPEC.validate(decisions)
