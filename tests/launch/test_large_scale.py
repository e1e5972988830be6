"""Searches of graphs that the host drives: what they write, and that they go on."""

import json
import os
import signal

import numpy as np
import pytest

import launch.driver
from configs import large_scale_digits
from controller.graph_spec import GraphSpec
from launch import build
from launch.architectures import find
from launch.artifact import load_artifact
from launch.command import Interrupted, UserError
from launch.describe import describe
from launch.driver import search
from launch.retrain import retrain
from launch.store import find_trials

MAX_MACS = 4_700  # those of the initial graph, nearly


def small(arg="smoke", **train):
    """The smoke variant, but for pads; some children are too large."""
    config = large_scale_digits.get_config(arg)
    config.evaluator.update(max_macs=MAX_MACS, pad=0)
    config.schedule.samples = 1  # few are compiled
    config.train.update({"rounds": 5, "checkpoint_seconds": 0.0} | train)
    return build.resolve(config)


@pytest.fixture(scope="module")
def built():
    return build.build(small())


@pytest.fixture(scope="module")
def whole(built, tmp_path_factory):
    """The workdir of a search that was never stopped, and its final state."""
    states, original = [], launch.driver.derive

    def spy(built, state, **kwargs):
        states.append(state)
        return original(built, state, **kwargs)

    workdir = tmp_path_factory.mktemp("whole")
    launch.driver.derive = spy
    try:
        search(small(), workdir, built=built)
    finally:
        launch.driver.derive = original
    return workdir, states[0]


def test_the_store_tells_of_graphs_parents_and_reasons(whole):
    workdir, state = whole
    trials = find_trials(workdir)
    assert len(trials) == 5 * 2
    spec = GraphSpec.parse
    for number, trial in enumerate(trials):
        assert spec(trial["encoding"])
        assert trial["parent"] is None or trial["parent"] < number
        if trial["status"] == "invalid":
            assert trial["reward"] is None
            assert "multiply-adds; max_macs=4,700" in trial["reason"]
        else:
            assert 0 <= trial["reward"] <= 1 and trial["reason"] is None
    assert {trial["status"] for trial in trials} == {"valid", "invalid"}
    assert any(trial["parent"] is not None for trial in trials)
    # The weights of those alive are kept, and no others.
    alive = state.strategy.trial[: state.strategy.alive]
    assert set(state.evaluator.weights) == {str(trial) for trial in alive}


def test_the_result_names_a_graph(whole, built):
    best = json.loads((whole[0] / "result.json").read_text())["best"]
    spec = built.space.spec
    assert spec.decode(best["genotype"]) == spec.validate(best["decisions"])
    assert np.isfinite(best["reward"])


def test_half_a_restart_and_the_other_half_equal_the_whole(
    whole, built, tmp_path, comparable
):
    search(small(rounds=3), tmp_path, built=built)
    search(small(), tmp_path, built=built)
    assert comparable(tmp_path) == comparable(whole[0])


def test_sigterm_in_the_middle_of_a_round_loses_nothing(
    whole, built, tmp_path, comparable
):
    def run(state, ticks):
        if int(state.step) >= 5:
            os.kill(os.getpid(), signal.SIGTERM)
        return built.loop.run(state, ticks)

    stopped = build.Search(**{**vars(built), "loop": built.loop._replace(run=run)})
    with pytest.raises(Interrupted):
        search(small(checkpoint_seconds=1e9), tmp_path, built=stopped)
    assert len(find_trials(tmp_path)) == 6  # the call that was running, too
    search(small(), tmp_path, built=built)
    assert comparable(tmp_path) == comparable(whole[0])


@pytest.mark.slow
def test_random_search_trains_random_graphs(tmp_path):
    config = small("smoke,random", rounds=2)
    search(config, tmp_path)
    trials = find_trials(tmp_path)
    assert len({trial["encoding"] for trial in trials}) == len(trials) == 4
    assert {trial["parent"] for trial in trials} == {None}


@pytest.mark.slow
def test_the_winner_is_retrained_and_reloads(whole):
    workdir = whole[0]
    config = small()
    report = retrain(config, workdir)
    winner = report["winner"]
    artifact = load_artifact(workdir / winner["artifact"])
    images = np.zeros((2, 8, 8, 1), np.uint8)
    assert artifact.logits(images).shape == (2, 10)
    found = describe(find(str(workdir / "winner.msgpack"), None, {}))
    assert found["params"] == winner["params"]
    assert found["genotype"] == winner["genotype"]
    assert len(report["random"]) == 1


@pytest.mark.parametrize(
    "section, options, message",
    [
        (
            "strategy",
            {"name": "reinforce", "learning_rate": 0.1},
            "config.space.name=large_scale: 'reinforce' cannot search this space; able "
            "are: large_scale_evolution, random_search",
        ),
        (
            "space",
            {"name": "genetic_cnn"},
            "genetic_cnn: 'large_scale_evolution' cannot search this space; able are: ",
        ),
        (
            "evaluator",
            {"name": "from_scratch"},
            "needs the binding 'sampled'; the space has only fixed",
        ),
        (
            "evaluator",
            {"name": "shared_weights"},
            "needs the binding 'sampled'; the space has only fixed",
        ),
    ],
)
def test_what_does_not_go_together_is_told_before_anything_compiles(
    section, options, message
):
    config = large_scale_digits.get_config("smoke").to_dict()
    config[section] = options
    with pytest.raises(UserError, match=message):
        build.build(config)


def test_child_steps_are_refused():
    config = large_scale_digits.get_config("smoke")
    config.schedule.child_steps = 1
    with pytest.raises(UserError, match="child_steps is 1; .* it must be 0"):
        build.build(config)
