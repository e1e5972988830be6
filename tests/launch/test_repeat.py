"""Repeating over seeds: pairing, the verdict, the table, one compilation."""

import json
import math

import pytest
from ml_collections import ConfigDict

import launch.repeat
from launch.command import UserError
from launch.repeat import repeat, summarise, table


def run(seed, winner, random, error=0.01):
    """The summary of one seed with these test accuracies."""

    def net(accuracy):
        return {"test_accuracy": accuracy, "standard_error": error, "params": 12345}

    return {
        "seed": seed,
        "winner": net(winner),
        "random": [net(accuracy) for accuracy in random],
        "budget": {"seconds": 99.6},
    }


def test_the_difference_is_paired_by_seed():
    # Seeds differ a lot, but the winner is 0.02 above its own random cells each time.
    runs = [run(0, 0.62, [0.5, 0.7]), run(1, 0.82, [0.79, 0.81]), run(2, 0.93, [0.9])]
    summary = summarise(runs)
    assert summary["winner"]["mean"] == pytest.approx(0.79)
    assert summary["random"]["mean"] == pytest.approx(2.3 / 3)
    assert summary["difference"]["mean"] == pytest.approx(0.07 / 3)
    # Differences 0.02, 0.02, 0.03: sample deviation sqrt(1/3) of 0.01.
    error = 0.01 * math.sqrt(1 / 3) / math.sqrt(3)
    assert summary["difference"]["standard_error"] == pytest.approx(error)
    assert summary["verdict"] == "winner better"


@pytest.mark.parametrize(
    "accuracies, verdict",
    [
        ([(0.9, 0.8), (0.8, 0.9), (0.85, 0.84)], "no difference"),
        ([(0.8, 0.9), (0.81, 0.9), (0.8, 0.91)], "winner worse"),
        ([(0.8, 0.8), (0.9, 0.9)], "no difference"),
    ],
)
def test_less_than_two_standard_errors_are_no_difference(accuracies, verdict):
    runs = [run(s, winner, [random]) for s, (winner, random) in enumerate(accuracies)]
    assert summarise(runs)["verdict"] == verdict


def test_one_seed_has_the_error_of_the_test_set():
    summary = summarise([run(0, 0.9, [0.8, 0.8], error=0.03)])
    assert summary["winner"]["standard_error"] == pytest.approx(0.03)
    assert summary["random"]["standard_error"] == pytest.approx(0.03 / math.sqrt(2))
    error = math.hypot(0.03, 0.03 / math.sqrt(2))
    assert summary["difference"]["standard_error"] == pytest.approx(error)


def test_the_table_has_a_row_a_seed_and_says_no_difference():
    runs = [run(0, 0.975, [0.97, 0.98]), run(1, 0.97, [0.975])]
    text = table("enas_micro_digits", {"seeds": runs, "summary": summarise(runs)})
    assert text.splitlines() == [
        "| enas_micro_digits | winner, test % | random, test % | difference | params "
        "| search, s |",
        "| --- | --- | --- | --- | --- | --- |",
        "| seed 0 | 97.50 ± 1.00 | 97.50 ± 0.71 | +0.00 | 12,345 | 100 |",
        "| seed 1 | 97.00 ± 1.00 | 97.50 ± 1.00 | -0.50 | 12,345 | 100 |",
        "| mean of 2 | 97.25 ± 0.25 | 97.50 ± 0.00 | -0.25 ± 0.25: no difference "
        "|  |  |",
    ]


def test_without_random_cells_there_is_no_difference_to_tell():
    runs = [run(0, 0.9, [])]
    summary = summarise(runs)
    assert summary["difference"] is None and summary["verdict"] is None
    assert "| mean of 1 | 90.00 ± 1.00 | - | - |" in table(
        "x", {"seeds": runs, "summary": summary}
    )


@pytest.fixture
def parts(monkeypatch):
    """Stands in for search and retraining; returns the calls that were made."""
    calls = []

    def search(config, workdir, *, built):
        calls.append(("search", config.train.seed, workdir.name, built))
        best = {"genotype": f"g{config.train.seed}", "reward": 0.5}
        diagnostics = {"collapse": None}
        return {"best": best, "diagnostics": diagnostics, "budget": {"seconds": 1.0}}

    def retrain(config, workdir):
        calls.append(("retrain", config.train.seed, workdir.name))
        return run(config.train.seed, 0.9, [0.8])

    def build(config):
        calls.append(("build", config.train.seed))
        return "built"

    monkeypatch.setattr(launch.repeat, "search", search)
    monkeypatch.setattr(launch.repeat, "retrain", retrain)
    monkeypatch.setattr(launch.repeat, "build", build)
    monkeypatch.setattr(launch.repeat, "resolve", ConfigDict)
    monkeypatch.setattr(launch.repeat, "prepare_jax", lambda config: None)
    return calls


def test_all_seeds_share_what_was_built_once(parts, tmp_path):
    report = repeat({"train": {"seed": 9}}, tmp_path, [0, 2])
    assert parts == [
        ("build", 9),
        ("search", 0, "seed_0", "built"),
        ("retrain", 0, "seed_0"),
        ("search", 2, "seed_2", "built"),
        ("retrain", 2, "seed_2"),
    ]
    assert [r["genotype"] for r in report["seeds"]] == ["g0", "g2"]
    assert json.loads((tmp_path / "repeat.json").read_text()) == report


@pytest.mark.parametrize("seeds", [[], [1, 1], [-1, 0]])
def test_seeds_must_be_distinct_and_not_negative(parts, tmp_path, seeds):
    with pytest.raises(UserError, match="distinct and 0 or more"):
        repeat({"train": {"seed": 0}}, tmp_path, seeds)
    assert not parts
