"""A search by trials from its start to the list of its trials, on a toy.

The toy's children are numbers: a reward depends on the decisions and on the key of the
policy step, and a child whose first decision is 2 fails.
"""

import csv
import json
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from controller.spec import Decision, DecisionSpec
from controller.strategies.random_search import random_search
from controller.types import Evaluator, Trial, no_improvement
from launch import build
from launch.command import Interrupted, UserError
from launch.driver import search
from launch.store import (
    COLUMNS,
    Condition,
    Store,
    find_trials,
    read_rounds,
    read_trials,
)
from launch.trials import listing, parse_condition, write_csv

SPEC = DecisionSpec(tuple(Decision(f"op{t}", ("a", "b", "bad")) for t in range(3)))
SCHEDULE = {"child_steps": 0, "policy_steps": 3, "samples": 2}
ROUNDS = 4


def toy_evaluator():
    def one(key, decisions):
        noise = jax.random.uniform(key, minval=0.0, maxval=0.1)
        return jnp.mean(decisions == 1, dtype=jnp.float32) + noise, decisions[0] != 2

    def evaluate(key, state, data, proposal):
        reward, valid = jax.vmap(one, (None, 0))(key, proposal.decisions)
        cost = jnp.sum(proposal.decisions, 1, keepdims=True).astype(jnp.float32)
        return state, Trial(proposal, jnp.where(valid, reward, 0), valid, cost)

    def score(state, data, decisions):
        reward, valid = one(state, decisions)
        return jnp.where(valid, reward, jnp.nan)

    return Evaluator((), lambda key, data: key, no_improvement, evaluate, score)


def toy_config(**train):
    settings = {"seed": 0, "rounds": ROUNDS, "checkpoint_seconds": 0.0}
    return build.resolve(
        {
            "data": {"name": "digits", "validation": 100, "seed": 0},
            "space": {"name": "nasbench201"},
            "strategy": {"name": "random_search"},
            "evaluator": {"name": "from_scratch"},
            "task": {"name": "classification"},
            "schedule": SCHEDULE,
            "derive": {"n": 3},
            "train": settings | train,
            "retrain": {},
        }
    )


@pytest.fixture(scope="module")
def toy(toy_search):
    """What `build` returns, for the toy."""
    return toy_search(toy_config(), SPEC, random_search(SPEC), toy_evaluator())


@pytest.fixture(scope="module")
def whole(toy, tmp_path_factory):
    """The workdir of a finished search, and its result."""
    workdir = tmp_path_factory.mktemp("whole")
    return workdir, search(toy_config(steps_per_call=1), workdir, built=toy)


def test_invalid_trials_are_recorded_with_their_reason(whole):
    workdir, result = whole
    trials = find_trials(workdir)
    assert len(trials) == 24 == result["budget"]["scored"]
    assert result["budget"]["child_steps"] == 0
    for trial in trials:
        decisions = [int(value) for value in trial["decisions"].split(",")]
        failed = decisions[0] == 2
        assert trial["status"] == ("invalid" if failed else "valid")
        assert trial["reason"] == ("its loss is not finite" if failed else None)
        assert (trial["reward"] is None) == failed
        assert trial["cost"] == sum(decisions)
        assert SPEC.decode(trial["encoding"]) == tuple(decisions)
    assert len({trial["status"] for trial in trials}) == 2


def test_records_count_valid_trials_only(whole):
    workdir, result = whole
    for record in read_rounds(workdir):
        rewards = [
            trial["reward"]
            for trial in find_trials(
                workdir, [Condition("round", "=", record["round"])]
            )
            if trial["status"] == "valid"
        ]
        assert record["reward_mean"] == pytest.approx(np.mean(rewards))
        assert record["child_loss"] is None
    best = find_trials(workdir, best=1)[0]["reward"]
    assert result["diagnostics"]["best_reward"] == best


@pytest.mark.parametrize("ticks", [1, 3])
def test_a_stopped_search_equals_the_whole(toy, whole, tmp_path, ticks):
    def run(state, count):
        if count and int(state.step) >= 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return toy.loop.run(state, count)

    stopped = build.Search(**{**vars(toy), "loop": toy.loop._replace(run=run)})
    config = toy_config(steps_per_call=ticks)
    with pytest.raises(Interrupted):
        search(config, tmp_path, built=stopped)
    assert 0 < len(read_trials(tmp_path)) < 24
    result = search(config, tmp_path, built=toy)
    assert find_trials(tmp_path) == find_trials(whole[0])
    for key in ("best", "candidates"):
        assert result[key] == whole[1][key]


def test_every_trial_is_in_the_store_when_its_call_has_ended(toy, tmp_path):
    def run(state, count):
        if count:
            assert len(read_trials(tmp_path)) == 2 * int(state.step)
        return toy.loop.run(state, count)

    watched = build.Search(**{**vars(toy), "loop": toy.loop._replace(run=run)})
    search(toy_config(steps_per_call=1), tmp_path, built=watched)


def test_the_store_of_other_settings_is_refused(toy, whole, tmp_path):
    (tmp_path / "trials.sqlite").write_bytes((whole[0] / "trials.sqlite").read_bytes())
    config = toy_config().to_dict()
    config["evaluator"]["epochs"] = 77
    with pytest.raises(UserError, match="trials.sqlite holds the trials of another"):
        search(config, tmp_path, built=toy)


# ---- the command --------------------------------------------------------------------


def test_csv_holds_every_column(whole, tmp_path):
    trials = find_trials(whole[0], [Condition("round", "<", 2)])
    write_csv(tmp_path / "trials.csv", trials)
    with open(tmp_path / "trials.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12 and tuple(rows[0]) == COLUMNS
    for row, trial in zip(rows, trials, strict=True):
        assert row["encoding"] == trial["encoding"]
        assert row["reward"] == (
            "" if trial["reward"] is None else f"{trial['reward']}"
        )
    with pytest.raises(UserError, match="cannot write .*absent"):
        write_csv(tmp_path / "absent" / "trials.csv", trials)


def test_a_listing_leaves_out_what_is_empty(whole):
    lines = listing(find_trials(whole[0])).splitlines()
    assert len(lines) == 25
    assert lines[0].split() == [
        *("seed", "round", "index", "status", "reward", "cost", "log_prob"),
        *("reason", "encoding"),
    ]
    assert listing([]) == "no trials"


@pytest.mark.parametrize(
    "text, condition",
    [
        ("reward>=0.9", ("reward", ">=", 0.9)),
        ("round = 3", ("round", "=", 3.0)),
        ("status!=invalid", ("status", "!=", "invalid")),
        ('encoding~"op0": "a"', ("encoding", "~", '"op0": "a"')),
    ],
)
def test_conditions_are_read(text, condition):
    assert parse_condition(text) == condition


@pytest.mark.parametrize(
    "text, message",
    [
        ("reward", "'reward' is no condition; .* <= >= != = < > ~"),
        ("rewards>1", "--where has no key 'rewards'; did you mean reward"),
        ("reward>high", "'high' is no number, as reward holds"),
    ],
)
def test_mistakes_in_conditions_are_told(text, message):
    with pytest.raises(UserError, match=message):
        parse_condition(text)


def test_costs_of_several_objectives_are_no_numbers(tmp_path):
    with Store(tmp_path, seed=0) as store:
        rows = [(0, i, "0", 0.5, True, 0.0, "a", None, c) for i, c in enumerate((7, 3))]
        store.add_trials(rows)
    over = [Condition("cost", ">", 5.0)]
    assert [trial["index"] for trial in find_trials(tmp_path, over)] == [0]
    with Store(tmp_path, seed=0) as store:
        store.add_trials([(0, 2, "0", 0.5, True, 0.0, "a", None, "[1.0, 2.0]")])
    with pytest.raises(
        UserError, match=r"cost is of several objectives .*\[1.0, 2.0\]"
    ):
        find_trials(tmp_path, over)
    assert len(find_trials(tmp_path, [Condition("cost", "~", "2.0]")])) == 1


def test_the_program(whole, start_programs, tmp_path):
    workdir = f"--workdir={whole[0]}"
    given = {
        "best": [workdir, "--best=2"],
        "csv": [workdir, "--status=invalid", f"--csv={tmp_path / 'invalid.csv'}"],
        "absent": [f"--workdir={tmp_path / 'absent'}"],
    }
    programs = start_programs("launch.trials", given)
    ends = {
        name: program.communicate(timeout=120) for name, program in programs.items()
    }
    assert len(ends["best"][0].splitlines()) == 3
    invalid = len(find_trials(whole[0], [Condition("status", "=", "invalid")]))
    assert ends["csv"][0].startswith(f"{invalid} trials written to ")
    assert programs["absent"].returncode == 1
    error = ends["absent"][1]
    assert error.startswith("error: ") and error.count("\n") == 1
    assert json.loads((whole[0] / "result.json").read_text()) == whole[1]
