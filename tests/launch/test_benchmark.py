"""`launch.benchmark`: what its rows say, and how a peer is asked."""

import json
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from launch import benchmark
from launch.command import UserError
from launch.suites import children, memory, peer, supernet, tabular
from launch.suites.timing import Options, Row, in_turn

RANDOM = {"random": {"name": "random_search"}}

ROW = Row.of("a step", [1.0, 4.0, 3.0], [1.0, 2.0, 2.0], note="beside the other")


def test_a_row_has_medians_and_the_median_of_paired_ratios():
    assert (ROW.ours, ROW.reference, ROW.ratio) == (3.0, 2.0, 1.5)
    assert ROW.spread == (1.25, 1.75)


def test_the_table_shows_every_row_and_leaves_out_what_is_absent():
    lines = benchmark.table([ROW, Row("a rate", 20.0, unit="GFLOP/s")]).splitlines()
    words = " ".join(lines[1].split())
    assert words == "a step 3.0 2.0 ms 1.50 1.25 to 1.75 beside the other"
    assert lines[2].split() == ["a", "rate", "20.0", "GFLOP/s"]


def test_programs_take_turns_after_a_first_call():
    called = []
    runs = {"a": lambda: called.append("a"), "b": lambda: called.append("b")}
    times = in_turn(runs, 3)
    assert called == ["a", "b"] * 4
    assert {name: len(ms) for name, ms in times.items()} == {"a": 3, "b": 3}


def test_repeated_steps_equal_single_ones():
    def step(state, choices, batch):
        images, labels = batch
        loss = (state * images).sum() - labels
        return loss, state - choices * loss

    batch = (jnp.array([1.0, 2.0]), jnp.float32(3))
    loss, state = children.repeated(step, 3)(jnp.float32(2), 0.1, batch)
    expected = jnp.float32(2)
    for _ in range(3):
        expected_loss, expected = step(expected, 0.1, batch)
    np.testing.assert_allclose((loss, state), (expected_loss, expected), rtol=1e-6)


@pytest.mark.parametrize("name", children.SIZES)
def test_every_space_is_built_at_its_size(name):
    case = children.setting(name)
    images, labels = case.batch
    assert images.shape[0] == labels.shape[0] == children.SIZES[name].batch
    drawn = children.architectures(case, 2)
    assert all(case.space.spec.validate(decisions) for decisions in drawn)


def python(text):
    return f'{sys.executable} -c "{text}"'


def test_the_last_line_of_a_peer_counts():
    figures = {"enas_child": 80.5, "enas_policy": 50}
    text = json.dumps(figures).replace('"', "'").replace("'", '\\"')
    assert peer.ask(python(f"print('warming up'); print('{text}')")) == figures


@pytest.mark.parametrize(
    "command, text",
    [
        ("no-such-program", "No such file"),
        (python("print('80 ms')"), "no JSON object"),
        (python("print()"), "no JSON object"),
        (python("raise SystemExit('no torch')"), "exits with 1: no torch"),
    ],
)
def test_a_peer_that_fails_is_told(command, text):
    with pytest.raises(UserError, match=text):
        peer.ask(command)


def test_mistakes_end_the_program_with_one_line(start_programs):
    commands = {
        "suite": ([], "suite"),
        "name": (["--suite=fast"], "supernet"),
        "spaces": (["--suite=memory", "--spaces=darts"], "'darts' is unknown; known"),
        "peer": (["--suite=memory", "--peer=true"], "supernet or relaxed"),
    }
    arguments = {name: given for name, (given, _) in commands.items()}
    for name, process in start_programs("launch.benchmark", arguments).items():
        out, err = process.communicate()
        assert process.returncode == 1 and not out, name
        assert len(err.splitlines()) <= 2 and commands[name][1] in err, name


@pytest.fixture
def tiny(monkeypatch):
    size = children.Size({"channels": 4, "cells": 1}, 2, 8)
    monkeypatch.setitem(children.SIZES, "nasbench201", size)
    return Options(("nasbench201",), n=1, repeats=1)


@pytest.mark.slow
def test_the_supernet_suite_measures_both_steps(tiny):
    rows = {row.name: row for row in supernet.supernet(tiny)}
    for kind in ("forward + backward", "full step"):
        row = rows[f"nasbench201: {kind}"]
        assert row.ours > 0 and row.reference > 0
        assert row.ratio == pytest.approx(row.ours / row.reference)
    assert 0 < rows["nasbench201: share of the peak"].ours < 100


def test_the_tabular_suite_times_every_strategy(monkeypatch):
    monkeypatch.setattr(tabular, "SEEDS", 2)
    monkeypatch.setattr(tabular, "EVALUATIONS", 3)
    monkeypatch.setattr(
        tabular, "get_config", lambda: ConfigDict({"strategies": RANDOM})
    )
    (row,) = tabular.tabular(Options((), n=1, repeats=2))
    assert row.name == "random: 2 seeds of 3 evaluations"
    assert row.unit == "s" and row.ours > 0


@pytest.mark.slow
def test_the_memory_suite_lists_every_form(tiny):
    rows = {row.name.split(": ")[1]: row for row in memory.memory(tiny)}
    assert set(rows) == {
        "sampled step",
        "relaxed step",
        "sampled step, dtype=bfloat16",
        "sampled step, remat=True",
    }
    assert all(row.unit == "MiB" and row.ours > 0 for row in rows.values())
