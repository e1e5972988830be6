"""Comparing strategies on a table."""

import json

import numpy as np
import pytest
from ml_collections import ConfigDict

from child_models.spaces.nasbench201 import SPEC
from child_models.tables import Table, write_table
from configs import common
from configs.compare_nasbench201 import get_config
from launch import compare as module
from launch.command import UserError
from launch.compare import compare, text
from launch.driver import search

STRATEGIES = {
    "random": {"name": "random_search"},
    "evolution": {
        "name": "regularized_evolution",
        "population": 4,
        "sample": 2,
        "samples": 2,
    },
}


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Accuracies that grow with the number of 3x3 convolutions, and costs too."""
    decisions = np.array(list(SPEC.enumerate()))
    convolutions = np.sum(decisions == 3, axis=1)
    noise = np.random.default_rng(0).normal(size=len(decisions))
    reward = 50.0 + 5 * convolutions + noise
    values = {"a": reward + 10, "b": reward - 10}
    path = tmp_path_factory.mktemp("table") / "t.npz"
    rewards = {"a": reward, "b": -reward}
    costs = {name: 10.0 + convolutions for name in rewards}
    write_table(path, Table(decisions, rewards, values, costs))
    return str(path), reward


def config(path, **changes):
    given = {
        "table": path[0],
        "space": {"name": "nasbench201", "classes": 10},
        "reward": "a",
        "seconds": 200.0,
        "seeds": 6,
        "strategies": STRATEGIES,
    }
    return ConfigDict(given | changes)


@pytest.fixture(scope="module")
def done(table, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("compare")
    return compare(config(table), workdir), workdir


def test_the_report_has_its_keys_and_is_written(done, table):
    report, workdir = done
    assert json.loads((workdir / "compare.json").read_text()) == report
    assert report["budget_seconds"] == 200 and report["seeds"] == 6
    assert set(report["strategies"]) == {"random", "evolution"}
    for rows in report["strategies"].values():
        assert set(rows) == {"a", "b"}
        for row in rows.values():
            assert row["std"] >= 0 and row["regret"] >= 0
            assert 200 / 16 <= row["evaluations"] <= 20
        # The two values differ by a constant.
        np.testing.assert_allclose(rows["a"]["mean"] - rows["b"]["mean"], 20)
        np.testing.assert_allclose(rows["a"]["regret"], rows["a"]["reward_regret"])
    best = float(table[1].max())
    expected = {"best": best + 10, "best_of_reward": best + 10, "best_reward": best}
    assert report["datasets"]["a"] == pytest.approx(expected)


def test_the_figure_and_the_table_show_all_strategies(done):
    report, workdir = done
    assert (workdir / "compare.png").read_bytes()[1:4] == b"PNG"
    lines = text(report).splitlines()
    assert "6 seeds of 200 simulated seconds" in lines[0]
    assert [line.split()[:2] for line in lines[-4:]] == [
        ["evolution", "a"],
        ["evolution", "b"],
        ["random", "a"],
        ["random", "b"],
    ]


def test_what_is_done_is_kept_and_what_changed_is_run_again(
    done, table, monkeypatch, capsys
):
    report, workdir = done
    runs, original = [], module.many_searches

    def counted(*args, **kwargs):
        search = original(*args, **kwargs)
        return lambda *args: runs.append(args) or search(*args)

    monkeypatch.setattr(module, "many_searches", counted)
    again = compare(config(table), workdir)
    assert not runs and again["strategies"] == report["strategies"]
    part = workdir / "searches" / "random-a.npz"
    part.write_bytes(b"")  # a kill while it was written
    again = compare(config(table), workdir)
    assert len(runs) == 1 and again["strategies"] == report["strategies"]


def test_own_rewards_and_evaluations(table, tmp_path):
    given = config(table, reward="own", seconds=None, evaluations=8)
    given.strategies = {"random": STRATEGIES["random"]}
    report = compare(given, tmp_path)
    rows = report["strategies"]["random"]
    assert rows["a"]["evaluations"] == rows["b"]["evaluations"] == 8
    # The search on -reward finds the cells of few convolutions.
    assert rows["b"]["mean"] + 20 < rows["a"]["mean"]


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"table": ""}, "config.table is missing; give --config.table=FILE.npz"),
        ({"table": "no.npz"}, "config.table: no table 'no.npz'"),
        ({"reward": "c"}, "config.table: the table has no reward 'c'; it has a, b"),
        ({"seconds": 5.0}, "config: seconds is 5; one evaluation costs up to 16 sec"),
        ({"evaluations": 5}, "give one of them"),
        ({"seeds": 0}, "config: seeds is 0; it must be 1 or more"),
        ({"budget": 3}, "config has no key 'budget'; known: table, reward, seconds"),
        ({"strategies": {}}, "config.strategies is empty"),
        (
            {"strategies": {"x": {"name": "evolve"}}},
            "config.strategies.x.name is 'evolve'; known: .*local_search",
        ),
        (
            {"strategies": {"x": {"name": "regularized_evolution", "sample": 200}}},
            "config.strategies.x: sample is 200; it must lie in 1 to population=100",
        ),
        (
            {"strategies": {"x": {"name": "random_search", "samples": 0}}},
            "config.strategies.x.samples is 0; it must be 1 or more",
        ),
        (
            {"strategies": {"x": {"name": "large_scale_evolution"}}},
            "strategies.x: 'large_scale_evolution' cannot search this space; able are:",
        ),
        (
            {"strategies": {"x": {"name": "darts"}}},
            "strategies.x: this strategy learns from gradients of relaxed weights",
        ),
    ],
)
def test_mistakes_are_told_before_anything_runs(table, tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        compare(config(table, **changes), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "change, message",
    [
        (
            {"value_b": 7},
            "value_b is not finite in 1 rows whose reward_a is, first of .*so its rew",
        ),
        ({"cost_a": 7}, "config.table: cost_a is nan in row 7, of .*; it must be"),
        ({"reward_b": 7}, "config.table: reward_b is not finite in 1 rows"),
    ],
)
def test_what_is_not_finite_is_told_before_anything_runs(
    table, tmp_path, change, message
):
    with np.load(table[0]) as file:
        columns = dict(file)
    for name, row in change.items():
        columns[name][row] = np.nan
    np.savez(tmp_path / "t.npz", **columns)
    reward = "own" if "reward_b" in change else "a"
    given = config((str(tmp_path / "t.npz"),), reward=reward)
    with pytest.raises(UserError, match=message):
        compare(given, tmp_path / "workdir")
    assert not (tmp_path / "workdir").exists()


def test_searches_that_find_nothing_valid_are_told(table, tmp_path):
    with np.load(table[0]) as file:
        columns = dict(file)
    for name in ("reward_a", "value_a", "value_b", "cost_a"):
        columns[name][5:] = np.nan  # nearly all is masked, its cost too
    np.savez(tmp_path / "t.npz", **columns)
    given = config((str(tmp_path / "t.npz"),), nan="mask", seeds=2)
    given.strategies = {"random": STRATEGIES["random"]}
    with pytest.raises(UserError, match="random found nothing valid in 2 of 2 search"):
        compare(given, tmp_path / "workdir")
    assert not (tmp_path / "workdir" / "compare.json").exists()


def test_another_table_at_the_same_place_is_searched_anew(table, tmp_path):
    path = tmp_path / "t.npz"
    given = config((str(path),), seeds=2, strategies={"random": STRATEGIES["random"]})
    with np.load(table[0]) as file:
        columns = dict(file)
    best = []
    for sign in (1, -1):
        columns["reward_a"] = sign * table[1]
        np.savez(path, **columns)
        report = compare(given, tmp_path)
        best.append(report["strategies"]["random"]["a"]["mean"])
    assert best[1] < best[0]


def test_the_config_is_complete(table):
    for arg in ("", "own"):
        given = get_config(arg)
        given.table = table[0]
        resolved = module.resolve(given)
        assert resolved.seeds == 500
        assert (resolved.seconds is None) == (arg == "own")
    with pytest.raises(ValueError, match="unknown config argument 'x'; known: own"):
        get_config("x")


def test_launch_search_takes_rewards_from_a_table(table, tmp_path):
    given = common.base()
    given.data.update(name="digits", validation=32, train_limit=64, test_limit=32)
    given.space.update(name="nasbench201", channels=4, cells=1)
    given.strategy = ConfigDict(
        {"name": "regularized_evolution", "population": 4, "sample": 2}
    )
    given.evaluator = ConfigDict({"name": "tabular", "table": table[0], "reward": "a"})
    given.schedule.update(child_steps=0, policy_steps=4, samples=2)
    given.derive.n = 3
    given.train.rounds = 3
    found = search(given, tmp_path)
    assert found["budget"]["scored"] == 24
    best = found["best"]
    row = SPEC.validate(best["decisions"])
    index = np.ravel_multi_index(row, SPEC.num_choices)
    np.testing.assert_allclose(best["reward"], table[1][index] / 100, rtol=1e-6)
