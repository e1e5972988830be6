"""The artefact: it reloads to the same logits, and damage is noticed."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import launch.artifact
from child_models.data.preprocess import preprocess
from child_models.types import Dataset, Split
from launch.artifact import load_artifact, save_artifact
from launch.command import UserError

SKIPS = (1,) * 6


@pytest.fixture(scope="module")
def network():
    """A space, and untrained variables of one of its networks."""
    arguments = {"name": "nasbench201", "classes": 3, "channels": 2, "cells": 1}
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 1), dtype=np.uint8)
    split = Split(images, np.arange(4, dtype=np.int32) % 3)
    mean, std = np.array([0.1], np.float32), np.array([0.7], np.float32)
    dataset = Dataset("x", split, split, split, 3, mean, std)
    space = launch.artifact.SPACES["nasbench201"](classes=3, channels=2, cells=1)
    module, choices = space.module("final"), space.bind(SKIPS)
    x = preprocess(dataset)(images)
    variables = jax.jit(lambda key, x: module.init(key, choices, x, True))(
        jax.random.key(0), x
    )
    logits = jax.jit(
        lambda v, x: module.apply(v, choices, preprocess(dataset)(x), False)
    )(variables, images)
    return arguments | {"dtype": "float32"}, dataset, variables, logits


def test_an_artefact_reloads_to_the_same_logits(network, tmp_path):
    arguments, dataset, variables, logits = network
    save_artifact(tmp_path / "a.msgpack", arguments, SKIPS, dataset, variables)
    loaded = load_artifact(tmp_path / "a.msgpack")
    np.testing.assert_array_equal(loaded.logits(dataset.test.images), logits)
    assert jnp.std(logits) > 0
    assert loaded.description["genotype"].count("skip_connect") == 6
    assert loaded.description["image"] == [8, 8, 1]


def test_a_damaged_or_foreign_artefact_is_told_in_one_line(network, tmp_path):
    arguments, dataset, variables, _ = network
    path = tmp_path / "a.msgpack"
    with pytest.raises(UserError, match="no artefact .*a.msgpack"):
        load_artifact(path)
    save_artifact(path, arguments, SKIPS, dataset, variables)
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(UserError, match="is no intact artefact: ") as mistake:
        load_artifact(path)
    assert "\n" not in str(mistake.value)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launch.artifact, "SCHEMA", 99)
        save_artifact(path, arguments, SKIPS, dataset, variables)
    with pytest.raises(UserError, match="schema 99; this version reads 1"):
        load_artifact(path)
