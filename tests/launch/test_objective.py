"""Searches with an objective on a table that is made here, and what is refused."""

import json

import jax
import numpy as np
import pytest

import launch.latency
from child_models.cost import count
from child_models.latency import device_name, read_latency
from configs import tabular_nasbench201_macs
from launch.build import build, build_space, resolve
from launch.command import UserError
from launch.driver import search
from launch.explain import explain
from launch.latency import measure
from launch.objective import space_key
from launch.reporting.run import read_run, scored
from launch.reporting.scatter import scatter
from launch.store import find_trials
from launch.workdir import open_workdir, read_config

SPACE = {
    "name": "nasbench201",
    "channels": 2,
    "cells": 1,
    "nodes": 3,
    "ops": ("none", "skip_connect", "nor_conv_3x3"),
}
ROWS = np.stack(np.meshgrid(*[range(3)] * 3, indexing="ij"), -1).reshape(-1, 3)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A table in which convolutions earn most."""
    path = tmp_path_factory.mktemp("table") / "table.npz"
    reward = 10.0 + 30 * (ROWS == 2).sum(axis=1) - ROWS[:, 0]
    np.savez(path, decisions=ROWS, reward_toy=reward, value_toy=0 * reward)
    return str(path)


@pytest.fixture
def config(table):
    """``(strategy, **objective) -> config``."""

    def make(strategy="evolution", rounds=6, **objective):
        found = tabular_nasbench201_macs.get_config(
            "evolution" if strategy == "evolution" else ""
        ).to_dict()
        if strategy == "evolution":
            found["strategy"] |= {"population": 4, "sample": 2}
        else:
            found["strategy"]["policy"] = {"hidden": 4}
        return found | {
            "data": {"name": "digits", "validation": 100, "seed": 0},
            "space": SPACE,
            "evaluator": {"name": "tabular", "table": table, "reward": "toy"},
            "schedule": {"child_steps": 0, "policy_steps": 4, "samples": 2},
            "derive": {"n": 2},
            "objective": objective,
            "train": {"seed": 0, "rounds": rounds, "checkpoint_seconds": 0.0},
        }

    return make


def resolve_space(**space):
    return resolve(
        {
            "data": {"name": "digits", "validation": 100, "seed": 0},
            "space": SPACE | space,
            "strategy": {"name": "random_search"},
            "evaluator": {"name": "from_scratch"},
            "task": {"name": "classification"},
            "schedule": {"child_steps": 0, "policy_steps": 1},
            "train": {"seed": 0, "rounds": 1},
        }
    )


def macs(decisions):
    """Counted in the network itself."""
    space = build_space(resolve_space(), classes=10)
    choices = space.bind(np.asarray(decisions))
    return count(space.module("final"), choices, (8, 8, 1)).macs


# ---- searches -----------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["reinforce", "evolution"])
def test_a_search_learns_the_objective_and_keeps_reward_and_cost(
    config, strategy, tmp_path
):
    dearest = macs([2, 2, 2])
    weight = {"name": "expected_cost", "weight": 2.0, "target": float(dearest)}
    given = config(strategy, cost="macs", limit=0.9 * dearest, **weight)
    result = search(given, tmp_path, quiet=True)
    trials = find_trials(tmp_path)
    for trial in trials:
        decisions = [int(v) for v in trial["decisions"].split(",")]
        assert trial["cost"] == macs(decisions) <= 0.9 * dearest
        plain = (10 + 30 * decisions.count(2) - decisions[0]) / 100
        assert trial["value"] == pytest.approx(plain, rel=1e-6)
        expected = plain - 2 * trial["cost"] / dearest
        assert trial["reward"] == pytest.approx(expected, rel=1e-5)
    best = result["best"]
    assert best["cost"] == macs(best["decisions"])
    expected = best["value"] - 2 * best["cost"] / dearest
    assert best["reward"] == pytest.approx(expected, rel=1e-5)
    assert best["reward"] >= max(trial["reward"] for trial in trials) - 1e-5


def test_the_front_of_a_report_is_that_of_plain_rewards(config, tmp_path):
    given = config(name="expected_cost", weight=1.0, target=1e5, cost="macs", rounds=2)
    search(given, tmp_path, quiet=True)
    run = read_run(tmp_path)
    axes = scatter(run, scored(run.trials), {}, 100)["axes"]
    costs, values = run.trials.cost[:, 0], run.trials.value
    front = {tuple(axes["cost0"]["points"][i][:2]) for i in axes["cost0"]["front"]}
    assert axes["cost0"]["label"] == "the objective's cost: multiply-adds"
    beaten = {
        (c, v)
        for c, v in zip(costs, values, strict=True)
        if np.any((costs <= c) & (values >= v) & ((costs < c) | (values > v)))
    }
    assert axes["cost0"]["plain"] and not axes["trial"]["plain"]
    points = set(zip(costs.tolist(), values.tolist(), strict=True)) - beaten
    np.testing.assert_allclose(sorted(front), sorted(points), rtol=1e-4)


def test_a_search_that_was_stopped_goes_on_as_if_it_had_not(config, tmp_path):
    options = {"name": "absolute", "cost": "params", "target": 2e3, "weight": -0.5}
    options["limit"] = 1.4e3
    search(config(rounds=3, **options), tmp_path / "halves", quiet=True)
    search(config(**options), tmp_path / "halves", quiet=True)
    search(config(**options), tmp_path / "whole", quiet=True)
    assert find_trials(tmp_path / "halves") == find_trials(tmp_path / "whole")


def test_a_workdir_from_before_there_were_objectives_goes_on(config, tmp_path):
    given = resolve(config())
    open_workdir(tmp_path, given)
    path = tmp_path / "config.json"
    old = json.loads(path.read_text())
    new = old.pop("objective")
    path.write_text(json.dumps(old))
    assert read_config(tmp_path)["objective"] == new
    open_workdir(tmp_path, given)
    with pytest.raises(UserError, match="objective.cost"):
        open_workdir(tmp_path, resolve(config(cost="macs")))


def test_without_a_cost_nothing_changes(config):
    plain = build(config())
    assert plain.costs is None and plain.evaluator.invalid.startswith("the table")


# ---- what is refused ----------------------------------------------------------------


def test_a_limit_that_nothing_meets_names_the_smallest_cost(config):
    least = macs([0, 0, 0])
    with pytest.raises(UserError) as error:
        build(config(cost="macs", limit=least - 1.0))
    assert f"limit is {least - 1:g}; the smallest possible cost is {least:g}" in str(
        error.value
    )
    build(config(cost="macs", limit=float(least)))


@pytest.mark.parametrize(
    "objective, message",
    [
        ({"name": "produkt"}, "config.objective: name is 'produkt'; known:"),
        ({"costs": "macs"}, "config.objective has no key 'costs'; did you mean cost?"),
        ({"cost": "latency", "table": "/nowhere"}, "cannot read latency table"),
    ],
)
def test_mistakes_in_the_section(config, objective, message):
    with pytest.raises(UserError, match=message.replace("?", r"\?")):
        build(config(**objective))


def test_costs_that_only_the_host_knows_need_the_host(config):
    given = config("evolution", cost="params") | {
        "space": {"name": "nas_rl_cnn", "layers": 2},
        "evaluator": {"name": "from_scratch", "epochs": 1, "executor": "compiled"},
    }
    with pytest.raises(UserError, match="known on the host only; take .*=local"):
        build(given)
    given["evaluator"]["executor"] = "local"
    built = build(given)
    decisions = np.asarray(built.space.spec.sample(jax.random.key(0)))
    module, choices = built.space.module("final"), built.space.bind(decisions)
    assert built.costs.count(decisions) == count(module, choices, (8, 8, 1)).params


def test_all_keys_are_explained(config):
    text = explain(resolve(config()))
    assert "config.objective.limit" in text
    about = text[text.index("config.objective.name") : text.index("config.derive")]
    assert "not described" not in about


# ---- latency tables -----------------------------------------------------------------


@pytest.fixture
def measured(monkeypatch, tmp_path):
    """A table whose milliseconds are not measured: ReLUConvBN takes 2, others 1."""
    calls = []

    def milliseconds(runs, repeats):
        calls.append(sorted(runs))
        return {name: run() for name, run in runs.items()}

    def network_run(space, decisions, image, batch):
        return lambda: 5.0 + 6.0 * np.sum(decisions == 2)

    monkeypatch.setattr(launch.latency, "milliseconds", milliseconds)
    monkeypatch.setattr(launch.latency, "network_run", network_run)
    monkeypatch.setattr(
        launch.latency,
        "unit_run",
        lambda each, batch: lambda: 1.0 + ("ReLUConvBN" in each.name),
    )
    built = build(resolve_space())
    path = tmp_path / "latency.json"

    def make(networks=4):
        return measure(
            *(built.config, built.dataset, built.space, path),
            batch=1,
            repeats=1,
            networks=networks,
        )

    return built, path, make, calls


def test_a_table_predicts_networks_by_their_units(measured, config):
    built, path, make, _ = measured
    found = make()
    assert found["rank_correlation"] > 0.8 and len(found["networks"]) == 4
    given = config(cost="latency", table=str(path))
    costs = build(given).costs
    # Three stages of three edges; zeros and skips are units too.
    assert costs.count([2, 2, 2]) - costs.count([0, 1, 0]) == pytest.approx(9.0)
    traced = costs.traced(np.int32([[2, 0, 1]]))
    assert float(traced[0]) == pytest.approx(costs.count([2, 0, 1]))


def test_what_was_measured_is_not_measured_again(measured):
    built, path, make, calls = measured
    first = make(networks=0)
    assert make(networks=1)["units"] == first["units"]
    assert make(networks=1) == make(networks=1)
    assert calls == [sorted(first["units"]), ["0"]]
    with pytest.raises(UserError, match="a table of another batch"):
        launch.latency.measure(
            *(built.config, built.dataset, built.space, path),
            batch=2,
            repeats=1,
            networks=0,
        )


@pytest.mark.parametrize(
    "change, message",
    [
        ({"space": {"name": "darts"}}, r"of another space: name \('darts' there"),
        ({"image": [32, 32, 3]}, r"of images \[32, 32, 3\]; those here are \[8, 8, 1"),
        ({"device": "Pixel 1"}, "was measured on 'Pixel 1'; this is"),
        ({"units": {}}, "lacks .* and .* others"),
        ({"units": None}, "is no latency table"),
    ],
)
def test_a_table_of_something_else_is_refused(measured, change, message):
    built, path, make, _ = measured
    path.write_text(json.dumps(make(networks=0) | change))
    with pytest.raises(ValueError, match=message):
        read_latency(
            path,
            space=space_key(built.config, 10),
            image=(8, 8, 1),
            device=None,
            terms=built.space.terms((8, 8, 1)),
        )


def test_a_table_of_a_named_device_is_taken(measured, config):
    _, path, make, _ = measured
    path.write_text(json.dumps(make(networks=0) | {"device": "Pixel 1"}))
    build(config(cost="latency", table=str(path), device="Pixel 1"))
    assert device_name() != "Pixel 1"


def test_times_are_measured():
    built = build(resolve_space())
    units = {each for t in built.space.terms((8, 8, 1)) for each, _ in t.units}
    runs = {
        each.name: launch.latency.unit_run(each, 64)
        for each in units
        if each.name.startswith(("ReLUConvBN", "ResidualBlock(features=8"))
    }
    times = launch.latency.milliseconds(runs, 3)
    assert times.keys() == runs.keys() and max(times.values()) > 0
