"""A space at a glance: exact sizes, an estimate of memory, and what keys mean."""

import functools
import subprocess
import sys

import numpy as np
import pytest

from child_models.cost import count
from child_models.spaces import SPACES
from configs import amoeba_digits, enas_micro_digits
from launch.__main__ import commands
from launch.build import resolve
from launch.explain import arguments, explain
from launch.glance import (
    Memory,
    decisions_table,
    memory_line,
    sizes,
    sizes_table,
    supernet_memory,
)

IMAGE = (8, 8, 1)


@pytest.fixture(scope="module")
def space():
    """27 cells of three edges; parameters are a sum over edges."""
    ops = ("none", "skip_connect", "nor_conv_1x1")
    return SPACES["nasbench201"](classes=2, channels=2, cells=1, nodes=3, ops=ops)


def test_groups_are_listed_with_their_choices(space):
    assert decisions_table(space.spec).splitlines() == [
        "group  decisions  choices  names",
        "op             3        3  none skip_connect nor_conv_1x1",
    ]
    micro = SPACES["enas_micro"](classes=2, nodes=3).spec
    assert "input         12   2 to 4  0 1 2 3" in decisions_table(micro)


def test_sizes_are_exact_where_all_samples_are_counted(space):
    found = sizes(space, IMAGE, samples=12, seconds=1e9)
    assert (found.counted, found.samples) == (12, 12)
    params = [cost.params for cost in found.named.values()]
    assert params == sorted(params)
    assert "counted" not in sizes_table(found)


def test_the_extremes_of_many_samples_are_found_by_few_counts(space):
    found = sizes(space, IMAGE, samples=1000, seconds=0.0)
    assert found.counted <= 11
    for name, cell in (("smallest", (1, 1, 1)), ("largest", (2, 2, 2))):
        cost = count(space.module("final"), space.bind(np.array(cell)), IMAGE)
        assert found.named[name].params == cost.params
    assert "of 1,000 random architectures" in sizes_table(found)
    assert "were counted, the others estimated" in sizes_table(found)


def test_memory_grows_with_the_batch_and_counts_the_weights(space):
    one, two = (supernet_memory(space, IMAGE, batch) for batch in (2, 4))
    assert one.weights == two.weights > 0
    assert 1.5 * one.saved < two.saved < 2.5 * one.saved
    fixed = space._replace(bindings=frozenset({"fixed"}))
    assert supernet_memory(fixed, IMAGE, 2) is None
    line = memory_line(Memory(2**20, 5 * 2**20), 64)
    assert "1.0 MiB of weights" in line and "takes about 8 MiB, 5 of them" in line


# ---- keys ---------------------------------------------------------------------------


def test_the_arguments_of_a_docstring_are_read():
    def factory(*, a, b, c, d):
        """Builds.

        Args:
          a: first,
            on two lines.
          b, c: both: of them.

        Returns:
          d: nothing.
        """

    expected = {"a": "first, on two lines.", "b": "both: of them."}
    expected["c"] = expected["b"]
    assert arguments(factory) == expected
    assert arguments(functools.partial(factory, a=1)) == expected


@pytest.mark.parametrize("config", [enas_micro_digits, amoeba_digits])
def test_every_key_of_a_config_is_explained(config):
    resolved = resolve(config.get_config())
    lines = explain(resolved).splitlines()
    assert "config.train.seed = 0" in lines and "not described" not in "".join(lines)
    keys = {line.partition(" =")[0] for line in lines if line.startswith("config.")}
    for section, options in resolved.to_dict().items():
        for name in options:
            key = f"config.{section}.{name}"
            assert key in keys or any(k.startswith(f"{key}.") for k in keys), key


def test_the_commands_are_listed():
    listed = commands()
    assert listed["launch.search"] == "Searches an architecture."
    assert {"launch.report", "launch.retrain", "launch.trials"} <= listed.keys()
    assert "launch.book" not in listed and all(listed.values())
    done = subprocess.run(
        [sys.executable, "-m", "launch"], capture_output=True, text=True, check=True
    )
    assert "  launch.describe   Describes" in done.stdout
