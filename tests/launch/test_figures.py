"""Drawings: architectures as graphs, and that nothing lies on another thing."""

import itertools

import jax
import numpy as np
import pytest
from matplotlib import image as matplotlib_image

from child_models.spaces import PUBLISHED, SPACES
from controller.graph import Layer
from controller.spec import Decision, DecisionSpec, Graph, GraphSpec
from launch.figures.graphs import graphs
from launch.figures.image import inline_svg, pixels, svg, text_width, write
from launch.figures.layout import lay_out
from launch.figures.text import picture


def drawn(space, text=None, seed=0, **options):
    """Graphs of an architecture: of a text, or a random one."""
    spec = SPACES[space](classes=2, **options).spec
    key = jax.random.key(seed)
    decisions = spec.decode(text) if text else spec.sample(key).tolist()
    return graphs(spec, decisions, space, options)


def edges(graph):
    """(source, target, op) by label, in order."""
    label = graph.nodes(data="label")
    return sorted(
        (label[s].split("\n")[0], label[t].split("\n")[0], op)
        for s, t, op in graph.edges(data="label")
    )


# ---- graphs -------------------------------------------------------------------------


def test_a_micro_cell_returns_the_states_that_no_node_reads():
    cells = drawn("enas_micro", "0 0 0 1  0 2 2 3 " + "1 4 0 0  1 4 2 0", nodes=2)
    assert edges(cells["normal"]) == [
        ("0", "1", "max_pool_3x3"),
        ("1", "c_{k}", ""),
        ("c_{k-1}", "c_{k}", ""),
        ("c_{k-2}", "0", "sep_conv_3x3"),
        ("c_{k-2}", "0", "sep_conv_5x5"),
        ("c_{k-2}", "1", "avg_pool_3x3"),
    ]
    assert edges(cells["reduce"])[-1] == ("c_{k-2}", "0", "sep_conv_3x3")


def test_a_nasnet_cell_numbers_its_inputs_the_other_way_round():
    published = PUBLISHED["NASNet-A-mobile"]
    spec = SPACES["nasnet"](**published.arguments).spec
    cells = graphs(spec, published.decisions, "nasnet", published.arguments)
    found = edges(cells["normal"])
    assert ("c_{k-1}", "0", "sep_conv_5x5") in found
    assert ("c_{k-2}", "0", "sep_conv_3x3") in found
    returned = {source for source, target, _ in found if target == "c_{k}"}
    assert returned == {"c_{k-2}", "0", "1", "2", "3", "4"}
    returned = {s for s, t, _ in edges(cells["reduce"]) if t == "c_{k}"}
    assert returned == {"1", "2", "3", "4"}


def test_a_combiner_that_concatenates_is_named():
    block = '[[["identity", 0], ["conv_1x1", 1], "concat"]]'
    cells = drawn("nasnet", f'{{"normal": {block}, "reduce": {block}}}', blocks=1)
    assert "0 concat" in dict(cells["normal"].nodes(data="label")).values()


def test_edges_of_none_are_left_out():
    cell = drawn(
        "nasbench201",
        "|nor_conv_3x3~0|+|none~0|none~1|+|skip_connect~0|avg_pool_3x3~1|none~2|",
    )[""]
    assert edges(cell) == [
        ("1", "c_{k}", "avg_pool_3x3"),
        ("c_{k-1}", "1", "nor_conv_3x3"),
        ("c_{k-1}", "c_{k}", "skip_connect"),
    ]
    nothing = drawn("nasbench201", "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|")
    assert sorted(nothing[""].nodes) == ["0", "3"] and svg(nothing)


def test_a_macro_network_is_a_chain_with_skips():
    graph = drawn("enas_macro", "0  1 1  2 0 1", layers=3)[""]
    kinds = [(s, t, kind) for s, t, kind in graph.edges(data="kind")]
    assert kinds == [
        ("image", "layer/0", "main"),
        ("layer/0", "layer/1", "main"),
        ("layer/0", "layer/1", "skip"),
        ("layer/1", "layer/2", "main"),
        ("layer/1", "layer/2", "skip"),
        ("layer/2", "logits", "main"),
    ]
    assert graph.nodes["layer/2"]["label"] == "2\nconv_5x5"


def test_anchors_wire_the_network_of_the_first_paper():
    space = SPACES["nas_rl_cnn"](classes=2, layers=3)
    graph = graphs(space.spec, (0, 1, 2, 0, 0, 0, 0, 1, 1, 1, 1, 0), "nas_rl_cnn")[""]
    assert edges(graph) == [
        ("0", "2", ""),
        ("1", "logits", ""),
        ("2", "logits", ""),
        ("image", "0", ""),
        ("image", "1", ""),
    ]
    assert graph.nodes["layer/0"]["label"] == "0\nconv 1x3\nfilters 48"


def test_a_stage_has_only_nodes_that_a_bit_names():
    stages = drawn("genetic_cnn", "0-01-000 | 0-00", nodes=(4, 3), channels=(2, 2))
    assert edges(stages["stage_1"]) == [
        ("2", "3", ""),
        ("3", "output", ""),
        ("input", "2", ""),
    ]
    assert list(stages["stage_2"]) == ["input"]


def test_a_cell_of_edges_with_two_inputs_returns_all_its_nodes():
    ops = ("none", "skip_connect", "sep_conv_3x3")
    spec = DecisionSpec(
        tuple(
            Decision(f"{cell}/{target}/{source}>{target}", ops, cell, target - 2)
            for cell in ("normal", "reduce")
            for target in (2, 3)
            for source in range(target)
        )
    )
    cells = graphs(spec, (1, 2, 0, 1, 2) * 2)
    assert (
        edges(cells["reduce"])
        == edges(cells["normal"])
        == [
            ("0", "1", "sep_conv_3x3"),
            ("0", "c_{k}", ""),
            ("1", "c_{k}", ""),
            ("c_{k-1}", "0", "sep_conv_3x3"),
            ("c_{k-1}", "1", "skip_connect"),
            ("c_{k-2}", "0", "skip_connect"),
        ]
    )
    cells = graphs(spec, (1, 2, 0, 1, 2) * 2, options={"reduce_concat": (3,)})
    assert [s for s, t, _ in edges(cells["reduce"]) if t == "c_{k}"] == ["1"]
    assert picture(spec, (1, 2, 0, 1, 2) * 2).splitlines()[1] == (
        "  normal/3  skip_connect(1) + sep_conv_3x3(2)"
    )


def test_two_sided_nodes_are_all_returned_in_the_space_of_darts():
    spec = SPACES["enas_micro"](classes=2, nodes=2).spec  # its pairs have such names
    cells = graphs(spec, (0, 0, 1, 0, 2, 0, 2, 0) * 2, "darts")
    assert [s for s, t, _ in edges(cells["normal"]) if t == "c_{k}"] == ["0", "1"]


def test_a_graph_without_bound_is_a_row_of_layers_with_skips():
    conv = Layer(0, "conv", 3, 1, stride=2, channels=8, activation="bn_relu")
    found = Graph(0.1, (conv, Layer(1, "identity")), skips=((0, 2),))
    spec = GraphSpec(found)
    decisions = spec.pack(found)
    graph = graphs(spec, decisions)[""]
    assert graph.nodes[1]["label"] == "1\nconv 3x1/2\nto 8\nbn_relu"
    assert list(graph.edges(data="kind")) == [
        (0, 1, "main"),
        (0, 2, "skip"),
        (1, 2, "main"),
        (2, "logits", "main"),
    ]
    assert picture(spec, decisions).splitlines()[1:] == [
        "  vertex 1  conv 3x1/2 to 8 channels, bn_relu",
        "  vertex 2  identity + vertex 0, linear",
    ]


# ---- layout -------------------------------------------------------------------------


def overlaps(box, other):
    return (
        abs(box.x - other.x) < (box.width + other.width) / 2
        and abs(box.y - other.y) < (box.height + other.height) / 2
    )


SIZES = {
    "enas_micro": {"nodes": 20},
    "enas_macro": {"layers": 20},
    "nasbench201": {"nodes": 8},
    "nasnet": {"blocks": 20},
    "pnas_cell": {"blocks": 20, "fewer": True},
    "nas_rl_cnn": {"layers": 20},
    "genetic_cnn": {"nodes": (20,), "channels": (2,)},
}


@pytest.mark.parametrize("space", SPACES)
def test_nothing_lies_on_another_and_all_runs_from_left_to_right(space):
    for name, graph in drawn(space, seed=1, **SIZES.get(space, {})).items():
        layout = lay_out(graph, text_width)
        for a, b in itertools.combinations(layout.boxes, 2):
            assert not overlaps(a, b), (name, a, b)
        for box in layout.boxes:
            assert box.x >= box.width / 2
            assert box.x + box.width / 2 <= layout.width
            assert max(map(text_width, box.label.split("\n"))) < box.width
        for line in layout.lines:
            xs, ys = zip(*line.points, strict=True)
            assert list(xs) == sorted(xs)
            # A straight part crosses a column of boxes: it must pass between them.
            for (left, y), (right, _) in zip(
                line.points[2:-2:2], line.points[3:-2:2], strict=True
            ):
                for box in layout.boxes:
                    if left < box.x < right:
                        assert abs(box.y - y) > box.height / 2, (name, box, line)
        assert len(layout.lines) == graph.number_of_edges() + sum(
            bool(op) for *_, op in graph.edges(data="label")
        )


# ---- files --------------------------------------------------------------------------


def test_an_svg_has_its_labels_as_text_and_is_the_same_again(tmp_path):
    cells = drawn("enas_micro", nodes=2)
    write(tmp_path / "cell.svg", cells, "enas_micro")
    text = (tmp_path / "cell.svg").read_text()
    for label in ("c_{k-2}", "c_{k-1}", "c_{k}", "normal", "reduce", "enas_micro"):
        assert f">{label}</text>" in text
    ops = {op for graph in cells.values() for *_, op in graph.edges(data="label") if op}
    assert ops and all(f">{op}</text>" in text for op in ops)
    assert svg(cells, "enas_micro") == text


def test_a_png_is_not_empty(tmp_path):
    cells = drawn("nasbench201")
    write(tmp_path / "cell.png", cells)
    image = matplotlib_image.imread(tmp_path / "cell.png")
    assert image.shape[1] > image.shape[0] > 100 and np.ptp(image) > 0.5
    small = pixels(cells)
    assert small.dtype == np.uint8 and small.shape[-1] == 3 and np.ptp(small) > 100


def test_an_svg_within_a_page_names_nothing_outside_it():
    text = inline_svg(drawn("nasbench201"), 'a "cell"')
    assert text.startswith("<svg ") and 'aria-label="a &quot;cell&quot;"' in text
    assert "http" not in text and " id=" not in text and "currentColor" in text


def test_another_ending_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"x.pdf: its name must end in .svg or .png"):
        write(tmp_path / "x.pdf", drawn("nasbench201"))


# ---- text ---------------------------------------------------------------------------


def test_the_text_names_what_is_not_an_op():
    spec = SPACES["nas_rl_cnn"](classes=2, layers=2).spec
    lines = picture(spec, (0, 1, 2, 0, 0, 0, 1)).splitlines()
    assert lines[0] == "  layer/0  height 1, width 3, filters 48"
    assert lines[1].endswith("filters 24, skips from 0")
    spec = SPACES["genetic_cnn"](classes=2, nodes=(3,), channels=(2,)).spec
    assert picture(spec, (1, 0, 1)) == "  stage_1  1-2 2-3"
    assert picture(spec, (0, 0, 0)) == "  stage_1  no connections"


# ---- spaces of one's own ------------------------------------------------------------


def own(*decisions):
    """Graph and text of the architecture of the last choices."""
    spec = DecisionSpec(tuple(decisions))
    last = [n - 1 for n in spec.num_choices]
    (graph,) = graphs(spec, last).values()
    lay_out(graph, text_width)  # it has no cycle
    return graph, picture(spec, last)


def test_a_decision_that_only_sounds_like_a_skip_is_a_field():
    graph, text = own(Decision("layer/0/skip_connect", ("no", "yes")))
    assert edges(graph) == [("0", "logits", ""), ("image", "0", "")]
    assert "skip_connect yes" in text


def test_a_skip_s_source_is_found_by_its_number():
    both = Decision("layer/1/op", ("a", "b")), Decision("layer/2/op", ("a", "b"))
    skip = Decision("layer/2/skip_0", ("no", "yes"), "skip")
    graph, text = own(*both, skip)  # nothing is decided about layer 0
    skips = [(s, t) for s, t, kind in graph.edges(data="kind") if kind == "skip"]
    assert skips == [("layer/0", "layer/2")]
    assert [graph.nodes[n]["label"] for n in skips[0]] == ["0", "2\nb"]
    assert "skips from 0" in text


def test_a_node_of_one_side_is_drawn():
    graph, text = own(
        Decision("0/input_left", ("a", "b"), "input", 0, (-2, -1)),
        Decision("0/op_left", ("conv", "pool"), "op", 0),
    )
    assert ("c_{k-1}", "0", "pool") in edges(graph) and "pool(b)" in text


def test_a_number_of_blocks_may_have_a_name():
    graph, text = own(Decision("size/blocks", ("few", "many"), "blocks"))
    assert "many" in text and "many" in graph.nodes["size"]["label"]
