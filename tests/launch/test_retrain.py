"""Retraining: what is trained, kept, shown and saved, and what goes on after a stop."""

import json
import os
import signal

import numpy as np
import pytest

import launch.retrain
import launch.training
from launch.artifact import load_artifact
from launch.build import build_space, resolve
from launch.command import Interrupted, UserError
from launch.retrain import compared, random_architectures, retrain
from launch.settings import as_json
from launch.tables import closing_table
from launch.training import NotFinite, Trained
from launch.workdir import write_json

SKIPS, CONV = (1,) * 6, (1, 1, 1, 2, 1, 1)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """An npz file of 8x8 images, whose grey level tells the class."""
    path = tmp_path_factory.mktemp("data") / "data.npz"
    arrays = {}
    for part, n in (("train", 24), ("test", 10)):
        labels = np.arange(n) % 2
        grey = 60 + 120 * labels[:, None, None, None]
        noise = np.random.default_rng(n).integers(0, 40, (n, 8, 8, 1))
        arrays[f"x_{part}"] = (grey + noise).astype(np.uint8)
        arrays[f"y_{part}"] = labels
    np.savez(path, **arrays)
    return path


def search_config(data):
    """Of a search on NAS-Bench-201's cells, resolved."""
    return resolve(
        {
            "data": {"name": f"npz:{data}", "validation": 8, "seed": 0},
            "space": {"name": "nasbench201", "channels": 2, "cells": 1},
            "strategy": {"name": "random_search"},
            "evaluator": {"name": "shared_weights", "batch_size": 4},
            "task": {"name": "classification"},
            "schedule": {"child_steps": 2, "policy_steps": 1, "samples": 2},
            "train": {"seed": 0, "rounds": 2, "checkpoint_seconds": 0.0},
            "retrain": {"epochs": 2, "batch_size": 4},
            "baseline": {"n": 2},
        }
    )


@pytest.fixture
def config(data):
    return search_config(data)


def finish_search(folder, config, decisions=SKIPS, scored=4):
    """Writes what a search would leave in its workdir."""
    folder.mkdir(exist_ok=True)
    write_json(folder / "config.json", as_json(config))
    result = {
        "strategy": config.strategy.name,
        "best": {"decisions": list(decisions), "genotype": "", "reward": 0.5},
        "budget": {"scored": scored},
        "config_sha256": "",
    }
    write_json(folder / "result.json", result)


def changed(config, section, **options):
    plain = config.to_dict()
    return resolve(plain | {section: plain[section] | options})


@pytest.fixture
def trained(monkeypatch):
    """Stands in for training and saving; the names of what was trained."""
    names = []

    def train(training, key, *, name, folder, **_):
        names.append(name)
        return Trained({}, 0.8, 1.5, 2.5)

    def save(path, *_):
        path.write_text("")

    monkeypatch.setattr(launch.retrain, "train", train)
    monkeypatch.setattr(launch.retrain, "save_artifact", save)
    return names


# ---- what is trained ----------------------------------------------------------------


def test_the_winner_stands_beside_random_architectures(config, tmp_path, trained):
    finish_search(tmp_path, config)
    report = retrain(config, tmp_path)
    assert trained == ["winner", "random 1", "random 2"]
    assert json.loads((tmp_path / "retrain.json").read_text()) == report
    assert report["winner"]["decisions"] == list(SKIPS)
    assert report["winner"]["test_accuracy"] == 0.8
    assert report["winner"]["standard_error"] == pytest.approx((0.16 / 10) ** 0.5)
    # 3x3 stem 1 to 2 and batch norm; two residual blocks 2-4-8 of two 3x3 convolutions
    # with a 1x1 shortcut; batch norm and classifier.
    blocks = sum(9 * (a * b + b * b) + a * b + 4 * b for a, b in ((2, 4), (4, 8)))
    assert report["winner"]["params"] == 18 + 4 + blocks + 16 + 8 * 2 + 2
    drawn = [tuple(row["decisions"]) for row in report["random"]]
    assert len({*drawn, SKIPS}) == 3
    assert report["recipe"]["epochs"] == 2 and report["recipe"]["test_images"] == 10


def test_random_architectures_are_distinct_and_depend_on_the_seed_alone(config):
    space = build_space(config, 2)
    first = random_architectures(space, 0, 5, SKIPS)
    assert len({*first, SKIPS}) == 6
    assert random_architectures(space, 0, 3, SKIPS) == first[:3]
    assert random_architectures(space, 1, 3, SKIPS) != first[:3]
    assert first[0] not in random_architectures(space, 0, 5, first[0])


def test_the_space_of_the_final_network_may_be_larger(config, tmp_path, trained):
    finish_search(tmp_path, config)
    small = retrain(config, tmp_path)["winner"]["params"]
    config = changed(config, "retrain", space={"channels": 4})
    report = retrain(config, tmp_path)
    assert report["winner"]["params"] > 3 * small
    assert report["recipe"]["space"]["channels"] == 4
    assert len(trained) == 6  # another recipe: all are trained anew


def test_nothing_is_trained_twice(config, tmp_path, trained):
    finish_search(tmp_path, config)
    first = retrain(config, tmp_path)
    assert retrain(config, tmp_path) == first and len(trained) == 3
    retrain(changed(config, "baseline", n=3), tmp_path)
    assert trained[3:] == ["random 3"]
    finish_search(tmp_path, config, decisions=CONV)  # the search went on
    report = retrain(config, tmp_path)
    assert trained[4:] == ["winner"] and report["random"] == first["random"]
    (tmp_path / "winner.msgpack").unlink()
    retrain(config, tmp_path)
    assert trained[5:] == ["winner"]


def test_what_was_trained_before_a_failure_is_kept(
    config, tmp_path, trained, monkeypatch
):
    def fail(training, key, *, name, **rest):
        if name == "random 2":
            raise NotFinite("the loss of step 3 (epoch 1) is not finite")
        return complete(training, key, name=name, **rest)

    complete = launch.retrain.train
    finish_search(tmp_path, config)
    with monkeypatch.context() as patch:
        patch.setattr(launch.retrain, "train", fail)
        with pytest.raises(UserError, match=r"random 2: the loss of step 3 .*\|.*~0\|"):
            retrain(config, tmp_path)
    retrain(config, tmp_path)
    assert trained == ["winner", "random 1", "random 2"]


def test_other_searches_and_architectures_are_added(config, tmp_path, trained, capsys):
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    finish_search(ours, config)
    finish_search(theirs, config, decisions=CONV, scored=9)
    report = retrain(config, ours, compare=theirs)
    assert [row["name"] for row in report["others"]] == ["random_search winner"]
    assert f"{theirs} scored 9 architectures, this search 4" in capsys.readouterr().out
    text = build_space(config, 2).spec.encode((3,) * 6)
    report = retrain(config, ours, arch=text)
    assert len(trained) == 5
    assert [row["name"][:5] for row in report["others"]] == ["rando", "arch "]
    assert report["others"][1]["decisions"] == [3] * 6
    assert (ours / report["others"][1]["artifact"]).exists()
    table = closing_table(report)
    assert "random_search winner" in table and "arch " in table


# ---- what goes wrong ----------------------------------------------------------------


def test_a_workdir_without_a_result_names_the_command(config, tmp_path):
    with pytest.raises(UserError, match="python -m launch.search --config=") as mistake:
        retrain(config, tmp_path)
    assert "\n" not in str(mistake.value) and str(tmp_path) in str(mistake.value)


@pytest.mark.parametrize(
    "options, text",
    [
        ({"batch_size": 25}, "config.retrain: a batch of 25 .* of 24 images"),
        ({"space": {"chanels": 3}}, "config.retrain.space has no key 'chanels'; did"),
        ({"space": {"channels": 0}}, "channels"),
        ({"epochs": 0}, "epochs is 0"),
    ],
)
def test_a_mistake_in_the_recipe_is_told_before_training(
    config, tmp_path, trained, options, text
):
    finish_search(tmp_path, config)
    with pytest.raises(UserError, match=text):
        retrain(changed(config, "retrain", **options), tmp_path)
    assert not trained


@pytest.mark.parametrize(
    "section, options, text",
    [
        ("data", {"seed": 1}, r"data.seed \(0 -> 1\)"),
        ("evaluator", {"clip_norm": None}, r"evaluator.clip_norm \(5.0 -> None\)"),
        ("schedule", {"samples": 3}, r"schedule.samples \(2 -> 3\)"),
        ("derive", {"n": 1}, r"derive.n \(10 -> 1\)"),
        ("train", {"rounds": 3}, r"train.rounds \(2 -> 3\)"),
    ],
)
def test_a_search_of_other_settings_is_no_comparison(
    config, tmp_path, section, options, text
):
    spec = build_space(config, 2).spec
    finish_search(tmp_path / "ours", config)
    finish_search(tmp_path / "theirs", changed(config, section, **options))
    with pytest.raises(UserError, match=f"more than its strategy: {text}$"):
        compared(spec, tmp_path / "ours", tmp_path / "theirs")


def test_seed_and_recipe_of_the_other_search_do_not_matter(config, tmp_path):
    spec = build_space(config, 2).spec
    finish_search(tmp_path / "ours", config)
    other = changed(changed(config, "train", seed=7, keep=9), "retrain", epochs=5)
    finish_search(tmp_path / "theirs", other, decisions=CONV)
    found = compared(spec, tmp_path / "ours", tmp_path / "theirs")
    assert found == {"random_search winner": CONV}


# ---- real training ------------------------------------------------------------------


@pytest.fixture
def compiled_once(monkeypatch):
    """Keeps compiled programs between the trainings of a test: they are the same."""
    programs = {}

    def compile_(self, function, *arguments, **options):
        name = function.__name__
        if name not in programs:
            programs[name] = original(self, function, *arguments, **options)
        return programs[name]

    original = launch.training._Run._compile
    monkeypatch.setattr(launch.training._Run, "_compile", compile_)


def test_a_stopped_training_goes_on_bit_for_bit(
    config, tmp_path, monkeypatch, compiled_once
):
    config = changed(config, "baseline", n=0)
    for name in ("whole", "stopped"):
        finish_search(tmp_path / name, config)
    monkeypatch.setattr(launch.training, "CALL_SECONDS", 0.0)  # one step a call
    whole = retrain(config, tmp_path / "whole")

    def stop(self):
        call(self)
        if self.step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    call = launch.training._Run.call
    with monkeypatch.context() as patch:
        patch.setattr(launch.training._Run, "call", stop)
        with pytest.raises(Interrupted):
            retrain(config, tmp_path / "stopped")
    assert not (tmp_path / "stopped" / "retrain.json").exists()
    steps = []

    def count(self):
        steps.append(self.step)
        call(self)

    monkeypatch.setattr(launch.training._Run, "call", count)
    stopped = retrain(config, tmp_path / "stopped")
    assert steps == list(range(3, 12))  # 2 epochs of 6 batches
    assert stopped["winner"]["test_accuracy"] == whole["winner"]["test_accuracy"]
    assert not (tmp_path / "stopped" / "retrain").exists()
    files = [tmp_path / name / "winner.msgpack" for name in ("whole", "stopped")]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert load_artifact(files[0]).description["decisions"] == list(SKIPS)


# ---- the program --------------------------------------------------------------------

COMMANDS = {
    "no workdir": ["--workdir={0}/absent"],
    "no result": ["--workdir={0}/unfinished"],
    "key of the search": ["--workdir={0}/run", "--config.space.channels=3"],
    "unknown key": ["--workdir={0}/run", "--config.retrain.epoch=3"],
    "unknown section": ["--workdir={0}/run", "--config.retrian.epochs=3"],
    "foreign architecture": ["--workdir={0}/run", "--arch=1 2 3"],
}
MESSAGES = {
    "no workdir": "is no workdir of a search; run first: ",
    "no result": "holds no finished search (result.json); run first: ",
    "key of the search": "config.space belongs to the search in ",
    "unknown key": "config.retrain has no key 'epoch'; did you mean epochs?",
    "unknown section": "config has no key 'retrian'; did you mean retrain?",
    "foreign architecture": "--arch: not a NAS-Bench-201 cell: '1 2 3'",
}


@pytest.fixture(scope="module")
def programs(start_programs, data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    finish_search(folder / "run", search_config(data))
    finish_search(folder / "unfinished", search_config(data))
    (folder / "unfinished" / "result.json").unlink()
    commands = {
        name: [argument.format(folder) for argument in given]
        for name, given in COMMANDS.items()
    }
    return start_programs("launch.retrain", commands)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_mistake_ends_the_program_with_one_line(name, programs):
    out, err = programs[name].communicate(timeout=120)
    assert programs[name].returncode == 1
    assert err.startswith("error: ") and MESSAGES[name] in err
    assert err.count("\n") == 1 and "Traceback" not in out
