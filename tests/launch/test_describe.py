"""Describing: what text names which network, and exact counts of it."""

import json

import numpy as np
import pytest
from ml_collections import ConfigDict

from child_models.genotype import read_genotype, write_genotype_json
from child_models.spaces import PUBLISHED, SPACES
from configs import enas_micro_cifar10, enas_micro_digits
from controller.spec import Decision, DecisionSpec
from launch.architectures import find, read_architecture
from launch.build import resolve
from launch.command import UserError
from launch.describe import build, describe, summary
from launch.figures.text import picture
from launch.settings import as_json
from launch.workdir import write_json

CELL = "|nor_conv_3x3~0|+|skip_connect~0|none~1|+|skip_connect~0|none~1|none~2|"
SMALL = {"channels": 2, "layers": 1}


def described(text, config=None, **overrides):
    return describe(find(text, config, overrides))


# ---- published names ----------------------------------------------------------------


def test_a_published_network_has_its_published_count():
    found = described("NASNet-A-CIFAR")
    assert found["params"] == 3_346_538 and found["params_aux"] == 0
    assert set(found) == {"params", "params_aux", "macs", "decisions", "genotype"}
    assert len(found["decisions"]) == 50


def test_overrides_change_a_published_network_and_a_config_file_does_not():
    small = described("NASNet-A-CIFAR", channels=4, cells=3)
    assert small["params"] < 30_000
    config = enas_micro_digits.get_config()
    assert described("NASNet-A-CIFAR", config, channels=4, cells=3) == small


def test_every_published_architecture_is_of_its_space():
    for name, published in PUBLISHED.items():
        subject = find(name, None, {})
        space = SPACES[published.space](**published.arguments)
        assert subject.arch == space.spec.validate(published.decisions), name


# ---- texts --------------------------------------------------------------------------


def test_a_nas_bench_201_string_has_the_benchmark_s_sizes():
    found = described(CELL)
    # C=16, N=5: beside a cell of skips, 15 convolutions in stages of 16, 32, 64.
    plain = described("|skip_connect~0|+|none~0|none~1|+|none~0|none~1|none~2|")
    convolutions = sum(5 * (9 * c * c + 2 * c) for c in (16, 32, 64))
    assert found["params"] - plain["params"] == convolutions
    assert found["macs"] - plain["macs"] == 3 * 5 * 9 * 16**2 * 32**2
    assert found["genotype"] == CELL
    assert described(CELL, channels=4, cells=1)["params"] < found["params"] / 30


def test_an_arc_shows_its_space_by_its_length():
    micro = find("0 0 1 0 " * 4, None, SMALL)
    assert (micro.space, micro.options["nodes"]) == ("enas_micro", 2)
    macro = find("0 1 0 2 1 0", None, {})
    assert (macro.space, macro.options["layers"]) == ("enas_macro", 3)
    assert describe(micro)["decisions"] == [0, 0, 1, 0] * 4
    with pytest.raises(UserError, match="'0 1 2 3 4' is no|it is no file"):
        find("0 1 2 3 4", None, {})


@pytest.mark.parametrize("count, nodes, layers", [(120, 15, 15), (136, 17, 16)])
def test_an_arc_that_fits_two_spaces_is_not_guessed(count, nodes, layers):
    arc = "0 " * count
    fits = (
        rf"enas_micro \({nodes} nodes\) and enas_macro \({layers} layers\); say which"
    )
    with pytest.raises(UserError, match=f"{fits}, as in --config.space.name="):
        find(arc, None, {})
    assert find(arc, None, {"name": "enas_micro"}).options["nodes"] == nodes
    assert find(arc, None, {"name": "enas_macro"}).options["layers"] == layers


def test_json_shows_its_space_by_the_names_of_decisions():
    names = [f"normal/{n}/op_left" for n in (2, 3)]
    subject = find(json.dumps(dict.fromkeys(names, "x")), None, {})
    assert (subject.space, subject.options["nodes"]) == ("enas_micro", 2)
    with pytest.raises(UserError, match="it is no file"):
        find('{"accuracy": 0.5}', None, {})


def test_a_genotype_is_read_back_without_a_config():
    for text, sizes in (
        ("0 0 1 0 " * 4, SMALL),
        ("0 1 0 2 1 0", {"channels": 2}),
        (CELL, {"channels": 2, "cells": 1}),
    ):
        first = described(text, **sizes)
        assert described(first["genotype"], **sizes) == first
    named = json.dumps(dict.fromkeys(("layer/0/op",), "x"))
    with pytest.raises(UserError, match="layers is 1; it must be at least 3"):
        described(named)


def test_a_nasnet_genotype_is_recognised():
    block = [["sep_conv_3x3", 0], ["identity", 1], "add"]
    text = json.dumps({"normal": [block], "reduce": [block]})
    subject = find(text, None, {"channels": 2, "cells": 2})
    assert (subject.space, subject.options["blocks"]) == ("nasnet", 1)
    assert describe(subject)["decisions"][:5] == [0, 1, 10, 0, 0]


def test_genotypes_whose_blocks_add_are_told_apart():
    block = [["sep_conv_3x3", 0], ["identity", 1]]
    small = {"channels": 2, "cells": 2}
    for cells, space in (
        ({"normal": [block], "reduce": [block]}, "amoeba_cell"),
        ({"cell": [block]}, "pnas_cell"),
    ):
        subject = find(json.dumps(cells), None, small)
        assert (subject.space, subject.options["blocks"]) == (space, 1)
        found = describe(subject)
        assert found["decisions"][:4] == [0, 1, 1, 0]
        assert found["genotype"] == json.dumps(cells)


V2_NORMAL = (
    "[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), "
    "('sep_conv_3x3', 1), ('sep_conv_3x3', 1), ('skip_connect', 0), "
    "('skip_connect', 0), ('dil_conv_3x3', 2)]"
)
V2_REDUCE = (
    "[('max_pool_3x3', 0), ('max_pool_3x3', 1), ('skip_connect', 2), "
    "('max_pool_3x3', 1), ('max_pool_3x3', 0), ('skip_connect', 2), "
    "('skip_connect', 2), ('max_pool_3x3', 1)]"
)


def test_a_darts_genotype_has_the_sizes_of_its_paper_as_text_and_as_json():
    concat = "range(2, 6)"
    text = (
        f"Genotype(normal={V2_NORMAL}, normal_concat={concat},"
        f" reduce={V2_REDUCE}, reduce_concat={concat})"
    )
    small = {"channels": 4, "cells": 3}
    expected = described("DARTS_V2", **small)
    assert expected["params"] == 2_858
    assert described(text, **small) == expected
    assert described(expected["genotype"], **small) == expected
    genotype = read_genotype(text)
    unsaid = genotype._replace(normal_concat=None, reduce_concat=None)
    for found in (genotype, unsaid):
        assert described(write_genotype_json(found), **small) == expected
    in_order = f"Genotype({V2_NORMAL}, {concat}, {V2_REDUCE}, {concat})"
    assert described(in_order, **small) == expected
    nested = {  # by node, as in khanrc/pt.darts
        name: [pairs[i : i + 2] for i in range(0, 8, 2)]
        for name, pairs in (("normal", genotype.normal), ("reduce", genotype.reduce))
    }
    for pasted in (f"DARTS_V2 = {text}", f"genotype = {text}", str(nested)):
        assert described(pasted, **small) == expected
    assert described(json.dumps(nested), **small) == expected
    assert described(json.dumps(genotype), **small) == expected
    subject = find(text, None, {})
    sizes = {**subject.options, "classes": subject.classes}
    assert sizes == PUBLISHED["DARTS_V2"].arguments


def test_a_module_of_genotypes_is_read_if_it_names_one(tmp_path):
    cell = "[('dil_conv_3x3', 0), ('skip_connect', 1)]"
    one = f"ONE = Genotype(normal={cell}, reduce={cell})\n"
    (tmp_path / "genotypes.py").write_text(f"import x\n{one}BEST = ONE\n")
    small = {"channels": 2, "cells": 1}
    found = described(str(tmp_path / "genotypes.py"), **small)
    assert found == described(one, **small)
    (tmp_path / "genotypes.py").write_text(one + one.replace("ONE", "TWO", 1))
    assert described(str(tmp_path / "genotypes.py"), **small) == found
    two = one.replace("ONE", "TWO").replace("dil_conv_3x3", "max_pool_3x3", 1)
    (tmp_path / "genotypes.py").write_text(one + two)
    with pytest.raises(
        UserError, match="holds 2 Genotypes that differ, ONE, TWO; give"
    ):
        described(str(tmp_path / "genotypes.py"))


def test_genotypes_of_other_cells_are_darts_s_or_enas_s():
    nasnet = described("NASNet-DARTS", channels=4, cells=3)
    assert described(nasnet["genotype"], channels=4, cells=3) == nasnet
    assert find(nasnet["genotype"], None, {}).options["pairs"]
    micro = (
        "Genotype(normal=[('skip_connect', 0), ('sep_conv_3x3', 0)], "
        "normal_concat=[1, 2], reduce=[('skip_connect', 0), ('avg_pool_3x3', 1)], "
        "reduce_concat=[2])"
    )
    assert find(micro, None, {}).space == "enas_micro"
    assert find(micro.replace("[1, 2]", "[2]"), None, {}).space == "darts"
    as_json = write_genotype_json(read_genotype(micro))
    for text in (micro, f"ENAS = {micro}", as_json):
        assert described(text, **SMALL)["decisions"] == [0, 4, 0, 0, 0, 4, 1, 2]
    with pytest.raises(UserError, match="--arch: op 'conv' of cell 'normal' must be"):
        described(micro.replace("sep_conv_3x3", "conv"))
    with pytest.raises(UserError, match="--arch: node 2 of cell 'normal' takes"):
        described(micro.replace("0)]", "2)]"))


def test_a_graph_is_recognised_and_drawn():
    layers = [
        {"op": "conv", "height": 3, "width": 5, "stride": 2, "channels": 16},
        {"op": "identity", "activation": "bn_relu"},
    ]
    text = json.dumps({"learning_rate": 0.1, "layers": layers, "skips": [[0, 2]]})
    subject = find(text, None, {})
    assert subject.space == "large_scale"
    found = describe(subject)
    assert found["params"] == 3 * 5 * 3 * 16 + 2 * 16 + 170
    assert found["macs"] == 3 * 5 * 3 * 16 * 256 + 160
    spec = build(subject).spec
    assert picture(spec, tuple(found["decisions"])).splitlines() == [
        "  vertex 0  the image",
        "  vertex 1  conv 3x5/2 to 16 channels, linear",
        "  vertex 2  identity + vertex 0, bn_relu",
    ]
    assert summary(spec) == "graphs without bound"
    with pytest.raises(UserError, match="skip 0 -> 2: it must lead forwards"):
        described('{"learning_rate": 1, "layers": [], "skips": [[0, 2]]}')


def test_a_mobile_network_is_recognised_by_its_blocks():
    text = "k5e3 | k7e3 k3e3 | k7e6 k5e3 | k5e6 | k7e6 k7e6 zero k5e6 | k7e6"
    found = described(text)
    assert found["decisions"][:4] == [2, 6, 6, 6]
    assert described(found["genotype"]) == found
    with pytest.raises(UserError, match="the network has 2 stages, .* has 6: 'k5e3 |"):
        described("k5e3 | k7e3")


def test_a_config_gives_the_sizes_of_the_network_it_retrains():
    config = enas_micro_cifar10.get_config()
    subject = find("0 0 1 0 " * 10, config, {})
    assert subject.options["channels"] == 36 and subject.options["layers"] == 15
    assert subject.image == (32, 32, 3) and subject.classes == 10
    assert find("", config, {"channels": 4}).options["channels"] == 4
    digits = find("", enas_micro_digits.get_config(), {})
    assert digits.image == (8, 8, 1) and digits.classes == 10


def test_files_of_the_user_s_are_asked_for_their_shape(tmp_path):
    images, labels = np.zeros((12, 6, 5, 2), np.uint8), np.arange(12) % 4
    arrays = {"x_train": images, "y_train": labels, "x_test": images, "y_test": labels}
    np.savez(tmp_path / "data.npz", **arrays)
    config = enas_micro_digits.get_config("smoke")
    config.data = ConfigDict(
        {"name": f"npz:{tmp_path}/data.npz", "validation": 2, "seed": 0}
    )
    subject = find("", config, {})
    assert subject.image == (6, 5, 2) and subject.classes == 4


# ---- files --------------------------------------------------------------------------


def test_a_result_is_described_at_the_sizes_of_its_workdir(tmp_path):
    config = resolve(enas_micro_digits.get_config("smoke"))
    decisions = [0, 0, 1, 0] * 4
    write_json(tmp_path / "result.json", {"best": {"decisions": decisions}})
    with pytest.raises(UserError, match="no config.json beside it; give --config"):
        described(str(tmp_path / "result.json"))
    write_json(tmp_path / "config.json", as_json(config))
    found = described(str(tmp_path / "result.json"))
    assert found == described("0 0 1 0 " * 4, enas_micro_digits.get_config("smoke"))
    (tmp_path / "config.json").write_text("{oops")
    with pytest.raises(UserError, match="config.json is not JSON"):
        described(str(tmp_path / "result.json"))
    write_json(tmp_path / "result.json", {"space": "enas_micro"})
    with pytest.raises(UserError, match="result.json names no best architecture"):
        described(str(tmp_path / "result.json"))
    (tmp_path / "arc.txt").write_text("0 0 1 0 " * 4 + "\n")
    assert described(str(tmp_path / "arc.txt"), **SMALL)["decisions"] == decisions
    with pytest.raises(UserError, match="no file .*absent.json"):
        described(str(tmp_path / "absent.json"))


# ---- what goes wrong ----------------------------------------------------------------


@pytest.mark.parametrize(
    "text, overrides, message",
    [
        ("NASNet-A-mobil", {}, "did you mean NASNet-A-mobile"),
        (None, {}, "--arch is missing: give --config, or one of: .*NASNet-A-CIFAR"),
        ("0 7 1 0 " * 4, SMALL, "'normal/2/op_left' is 7; legal: 0 .sep_conv_3x3., 1"),
        (CELL.replace("none~2", "pool~2"), {}, "'pool' must be one of: none, skip"),
        (CELL, {"chanels": 3}, "config.space has no key 'chanels'; did you mean"),
        (CELL, {"channels": 0}, "config.space: .*channels"),
        (CELL, {"name": "x"}, "config.space.name is 'x'; known: amoeba_cell, "),
    ],
)
def test_a_mistake_is_told_in_one_line(text, overrides, message):
    with pytest.raises(UserError, match=message) as mistake:
        described(text, **overrides)
    assert "\n" not in str(mistake.value)


# ---- text ---------------------------------------------------------------------------


def test_the_picture_has_a_line_a_node():
    cell = SPACES["nasbench201"](classes=2).spec
    assert picture(cell, cell.decode(CELL)).splitlines() == [
        "  node 1  nor_conv_3x3(0)",
        "  node 2  skip_connect(0)",
        "  node 3  skip_connect(0)",
    ]
    arc = SPACES["enas_macro"](classes=2, layers=3).spec
    lines = picture(arc, (0, 1, 0, 2, 1, 1)).splitlines()
    assert "skips" not in lines[1] and lines[2].endswith(", skips from 0 1")
    micro = SPACES["enas_micro"](classes=2, nodes=1).spec
    first = picture(micro, (0, 0, 1, 2) * 2).splitlines()[0]
    assert first == "  normal/2  sep_conv_3x3(0) + avg_pool_3x3(1)"


def test_a_combiner_shows_in_the_picture():
    nasnet = SPACES["nasnet"](classes=2, blocks=1).spec
    line = picture(nasnet, (0, 1, 0, 0, 1) * 2).splitlines()[0]
    assert line == "  normal/0  concat(identity(current), identity(previous))"


def test_the_picture_leaves_out_absent_blocks():
    spec = SPACES["pnas_cell"](classes=2, blocks=2, fewer=True).spec
    line = "  cell/0  sep_conv_3x3(current) + identity(previous)"
    assert picture(spec, (0, 0, 1, 1, 0, 0, 0, 0, 0)) == line


def test_the_summary_of_a_space_counts_it():
    spec = DecisionSpec(tuple(Decision(f"d{t}", ("a", "b", "c")) for t in range(8)))
    assert summary(spec) == "8 decisions (8 op), 6,561 architectures (6.56e+03)"


def test_read_architecture_names_the_decision():
    spec = SPACES["enas_micro"](classes=2, nodes=1).spec
    assert read_architecture(spec, "0 0 1 2 0 0 1 2") == (0, 0, 1, 2) * 2
    with pytest.raises(UserError, match="--arch: decision 1 'normal/2/op_left' is 9"):
        read_architecture(spec, "0 9 1 2 0 0 1 2")


# ---- the program --------------------------------------------------------------------

COMMANDS = {
    "draw": [f"--arch={CELL}", "--config.space.channels=4", "--draw=/nowhere/x.svg"],
    "json": ["--arch=NASNet-A-mobile", "--json"],
    "override": [f"--arch={CELL}", "--config.space.channels=4", "--image=8,8,1"],
    "space": ["--config=configs/enas_micro_digits.py"],
    "illegal": ["--arch=0 7 1 0 0 0 1 0"],
    "unknown": ["--arch=NASNet-B"],
}


@pytest.fixture(scope="module")
def programs(start_programs):
    return start_programs("launch.describe", COMMANDS)


def test_the_program_prints_json(programs):
    out, err = programs["json"].communicate(timeout=120)
    assert programs["json"].returncode == 0, err
    found = json.loads(out)
    assert found["params"] == 5_289_978
    assert list(found) == ["params", "params_aux", "macs", "decisions", "genotype"]


def test_the_program_takes_overrides_without_a_config(programs):
    out, err = programs["override"].communicate(timeout=120)
    assert programs["override"].returncode == 0, err
    assert "channels=4" in out and "images 8x8x1" in out
    assert "node 1  nor_conv_3x3(0)" in out


def test_the_program_describes_a_space(programs):
    out, err = programs["space"].communicate(timeout=120)
    assert programs["space"].returncode == 0, err
    assert out.startswith("enas_micro: ") and "24 decisions (12 input, 12 op)" in out


@pytest.mark.parametrize(
    "name, message",
    [
        ("draw", "--draw: "),
        ("illegal", "'normal/2/op_left' is 7; legal: 0 (sep_conv_3x3)"),
        ("unknown", "'NASNet-B': did you mean NASNet-"),
    ],
)
def test_a_mistake_ends_the_program_with_one_line(programs, name, message):
    out, err = programs[name].communicate(timeout=120)
    assert programs[name].returncode == 1 and not out
    assert err.startswith("error: ") and message in err and err.count("\n") == 1
