"""Exports: another program computes the same logits from them, for any batch."""

import json
import re
import subprocess
import sys

import jax
import numpy as np
import pytest

from child_models.spaces import PUBLISHED, SPACES
from child_models.types import Dataset, Split
from launch.artifact import load_artifact, save_artifact
from launch.export import as_text, export, flatten, genotype, onnx, source, texts
from launch.figures.graphs import graphs

SMALL = {
    "nasbench201": {"channels": 2, "cells": 1},
    "enas_micro": {"nodes": 1, "channels": 2, "layers": 1},
    "enas_macro": {"channels": 2, "layers": 3},
    "nasnet": {"blocks": 1, "channels": 2, "cells": 2},
    "genetic_cnn": {"nodes": (3,), "channels": (2,), "kernel": 3, "hidden": 4},
    "nas_rl_cnn": {"layers": 2, "filters": (2, 3)},
}

SLOW = pytest.mark.slow


def make(folder, name, dtype="float32"):
    """An artefact of a random architecture and untrained weights."""
    arguments = {"classes": 3, "dtype": dtype, **SMALL[name]}
    space = SPACES[name](**arguments)
    decisions = space.spec.sample(jax.random.key(1)).tolist()
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 1), np.uint8)
    split = Split(images, np.arange(4, dtype=np.int32) % 3)
    mean, std = np.array([0.1], np.float32), np.array([0.7], np.float32)
    dataset = Dataset("x", split, split, split, 3, mean, std)
    module, choices = space.module("final"), space.bind(np.array(decisions))
    shapes = jax.eval_shape(
        lambda x: module.init(jax.random.key(0), choices, x, True),
        jax.ShapeDtypeStruct(images.shape, np.float32),
    )
    rng = np.random.default_rng(1)
    variables = jax.tree.map(
        lambda leaf: rng.uniform(0.2, 1.0, leaf.shape).astype(leaf.dtype), shapes
    )
    saved = {k: variables[k] for k in ("params", "batch_stats") if k in variables}
    path = folder / "winner.msgpack"
    save_artifact(path, {"name": name, **arguments}, decisions, dataset, saved)
    return load_artifact(path), images


ALL = [
    name if name in ("nasbench201", "genetic_cnn") else pytest.param(name, marks=SLOW)
    for name in SMALL
]


@pytest.mark.parametrize("name", ALL)
def test_the_exported_network_has_the_same_logits_for_any_batch(tmp_path, name):
    network, images = make(tmp_path, name)
    export(network, tmp_path / "out")
    from jax import export as jax_export
    from safetensors.numpy import load_file

    data = bytearray((tmp_path / "out" / "model.stablehlo").read_bytes())
    loaded = jax_export.deserialize(data)
    weights = load_file(tmp_path / "out" / "params.safetensors")
    assert loaded.platforms == ("cpu", "cuda", "tpu")
    expected = np.asarray(network.logits(images))
    assert np.std(expected) > 0
    for batch in (4, 1):
        found = np.asarray(loaded.call(weights, images[:batch]))
        scale = np.abs(expected).max()
        np.testing.assert_allclose(found, expected[:batch], atol=1e-5 * scale)


@pytest.mark.parametrize("name", ALL)
def test_the_flax_file_has_the_same_logits_and_stands_alone(tmp_path, name):
    network, images = make(tmp_path, name)
    text = source(network)
    ours = ("child_models", "controller", "launch", "configs")
    assert not re.search(rf"^(import|from) ({'|'.join(ours)})\b", text, re.M)
    names = {"__name__": "network", "__file__": "network.py"}
    exec(compile(text, "network.py", "exec"), names)
    variables = {"params": flatten(network.variables)}
    expected = np.asarray(network.logits(images))
    scale = np.abs(expected).max()
    for batch in (4, 1):
        found = jax.jit(names["Network"]().apply)(variables, images[:batch])
        np.testing.assert_allclose(found, expected[:batch], atol=1e-5 * scale)


@pytest.mark.parametrize("name", ALL)
def test_an_onnx_runtime_has_the_same_logits_for_any_batch(tmp_path, name):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    network, images = make(tmp_path, name)
    session = runtime.InferenceSession(onnx(network))
    expected = np.asarray(network.logits(images))
    scale = np.abs(expected).max()
    for batch in (4, 1):
        (found,) = session.run(["logits"], {"images": images[:batch]})
        np.testing.assert_allclose(found, expected[:batch], atol=1e-4 * scale)


def test_a_network_of_bfloat16_is_one_of_float32_in_onnx(tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    network, images = make(tmp_path, "nasbench201", "bfloat16")
    (found,) = runtime.InferenceSession(onnx(network)).run(None, {"images": images})
    expected = np.asarray(make(tmp_path, "nasbench201")[0].logits(images))
    atol = 1e-4 * np.abs(expected).max()
    np.testing.assert_allclose(found, expected, atol=atol)
    assert np.abs(network.logits(images) - expected).max() > atol


def test_both_programs_run_without_this_project(tmp_path):
    network, images = make(tmp_path, "nas_rl_cnn")
    export(network, tmp_path / "out")
    known = json.loads((tmp_path / "out" / "architecture.json").read_text())
    assert known["space"]["name"] == "nas_rl_cnn" and known["image"] == [8, 8, 1]
    spec = SPACES["nas_rl_cnn"](classes=3, **SMALL["nas_rl_cnn"]).spec
    text = (tmp_path / "out" / "genotype.txt").read_text()
    assert list(spec.decode(text)) == known["decisions"] and known["darts"] is None
    np.save(tmp_path / "images.npy", images)
    for program in ("load.py", "network.py"):
        done = subprocess.run(
            [sys.executable, "-I", tmp_path / "out" / program, tmp_path / "images.npy"],
            capture_output=True,
            text=True,
            check=True,
        )
        rows = json.loads(",".join(done.stdout.split()).replace("[,", "["))
        np.testing.assert_allclose(rows, network.logits(images), rtol=1e-4)


def test_genotypes_have_darts_s_states():
    published = PUBLISHED["NASNet-A-CIFAR"]
    spec = SPACES["nasnet"](**published.arguments).spec
    cells = graphs(spec, published.decisions, "nasnet", published.arguments)
    fields = genotype(cells)
    # DARTS's NASNet, whose states 0 and 1 are the other way round than NASNet's.
    assert sorted(map(tuple, fields["normal"][:2])) == [
        ("sep_conv_3x3", 0),
        ("sep_conv_5x5", 1),
    ]
    assert fields["normal_concat"] == [0, 2, 3, 4, 5, 6]
    assert as_text(fields).startswith("Genotype(normal=[('sep_conv_5x5', 1), (")
    assert genotype({"": next(iter(cells.values()))}) is None
    micro = SPACES["enas_micro"](classes=2, nodes=2).spec
    decisions = tuple(micro.sample(jax.random.key(0)).tolist())
    text = as_text(genotype(graphs(micro, decisions, "enas_micro")))
    assert micro.decode(text) == decisions
    chain = SPACES["enas_macro"](classes=2, layers=3).spec
    assert genotype(graphs(chain, (0, 1, 0, 1, 1, 1))) is None


@pytest.mark.parametrize("name", sorted(set(SPACES) - {"large_scale"}))
def test_the_exported_text_is_one_that_the_space_reads(name):
    spec = SPACES[name](classes=2).spec
    decisions = tuple(spec.sample(jax.random.key(0)).tolist())
    text, fields = texts(spec, decisions, name, {})
    assert spec.decode(text) == decisions
    assert text.startswith("Genotype") == (name in ("darts", "enas_micro"))
    assert (fields is not None) == (name in ("amoeba_cell", "darts", "enas_micro"))


def test_a_workdir_without_retrained_weights_names_the_command(
    start_programs, tmp_path
):
    started = start_programs("launch.export", {"none": [f"--workdir={tmp_path}"]})
    out, err = started["none"].communicate(timeout=120)
    assert started["none"].returncode == 1 and not out
    assert "no retrained winner.msgpack; run: " in err
    assert f"-m launch.retrain --workdir={tmp_path}" in err
