"""A space at a glance: exact sizes, an estimate of memory, and what keys mean."""

import functools
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from child_models.cost import count
from child_models.spaces import SPACES
from configs import amoeba_digits, compare_nasbench201, enas_micro_digits
from launch.__main__ import commands
from launch.build import resolve
from launch.explain import arguments, explain, explain_comparison
from launch.glance import (
    decisions_table,
    sizes,
    sizes_table,
)
from launch.supernet_step import (
    Estimate,
    Measured,
    compile_step,
    estimate_lines,
    measured_line,
    operations,
    trace_step,
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


@pytest.mark.parametrize("binding", ["sampled", "relaxed"])
def test_a_step_s_memory_grows_with_the_batch_and_counts_the_weights(space, binding):
    one, two = (trace_step(space, IMAGE, batch, binding) for batch in (2, 4))
    assert one.weights == two.weights > 0
    assert 1.5 * one.saved < two.saved < 2.5 * one.saved
    assert one.operations == two.operations > 100


def test_a_relaxed_step_keeps_more_than_a_sampled_one(space):
    sampled, relaxed = (
        trace_step(space, IMAGE, 8, binding) for binding in ("sampled", "relaxed")
    )
    assert relaxed.saved > sampled.saved and relaxed.weights == sampled.weights


def test_the_operations_inside_calls_and_loops_are_counted():
    def body(carry, x):
        return jnp.sin(carry) + x, None

    def step(x, many):
        return jax.lax.scan(body, jax.jit(jnp.cos)(x), many)[0]

    traced = jax.make_jaxpr(step)(np.float32(1), np.ones(9, np.float32))
    assert operations(traced.jaxpr) == 3  # cos; sin and + of the loop


def test_what_is_estimated_and_what_is_measured_is_said():
    found = Estimate(2**20, 5 * 2**20, 3000)
    text = estimate_lines(found, 64)
    assert "1.0 MiB of weights" in text and "takes about 8 MiB, 5 of them" in text
    assert "some 2 to 3 s to compile on two CPU cores, estimated" in text
    assert "compile" not in estimate_lines(found, 64, measured=True)
    line = measured_line(Measured(1.25, 3 * 2**20), 3000)
    assert "was compiled in 1.2 s on this machine" in line and "takes 3 MiB" in line


def test_a_step_is_compiled_and_takes_memory(space):
    ops = ("none", "skip_connect")
    small = SPACES["nasbench201"](classes=2, channels=2, cells=1, nodes=2, ops=ops)
    found = compile_step(small, IMAGE, 2, "sampled")
    assert found.seconds > 0 and found.memory > 0


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


def test_the_keys_of_a_comparison_are_explained():
    lines = explain_comparison(compare_nasbench201.get_config()).splitlines()
    assert "config.seeds = 500" in lines and "not described" not in "".join(lines)
    assert any(line.startswith("config.strategies.ppo.learning_rate") for line in lines)


def test_the_commands_are_listed():
    listed = commands()
    assert listed["launch.search"] == "Searches an architecture."
    assert {"launch.report", "launch.retrain", "launch.trials"} <= listed.keys()
    assert "launch.book" not in listed and all(listed.values())
    done = subprocess.run(
        [sys.executable, "-m", "launch"], capture_output=True, text=True, check=True
    )
    assert "  launch.describe   Describes" in done.stdout
