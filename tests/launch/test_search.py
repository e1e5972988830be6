"""The driver of a search on a toy: continuing, signals, failures, and bad input.

The toy's "weights" are a running sum of random draws, and its reward depends on them,
so that any step lost or done twice shows in every later number.  Its policy is a table
of logits, which compiles in a moment.
"""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import launch.book
import launch.driver
from controller.spec import Decision, DecisionSpec
from controller.types import Evaluator, Proposal, Strategy, Trial
from launch import build
from launch.command import Interrupted, UserError
from launch.driver import SearchFailed, search
from launch.store import read_rounds, read_trials

SPEC = DecisionSpec(
    tuple(Decision(f"op{t}", ("none", "conv", "pool")) for t in range(3))
)
SCHEDULE = {"child_steps": 3, "policy_steps": 2, "samples": 4, "warmup_rounds": 1}


def toy_strategy():
    """REINFORCE on a table of logits [T, V]."""

    def log_prob(logits, decisions):
        taken = jax.nn.one_hot(decisions, 3) * jax.nn.log_softmax(logits)
        return jnp.sum(taken)

    def propose(key, state, n):
        keys = jax.random.split(key, n)
        decisions = jax.vmap(jax.random.categorical, (0, None))(keys, state["logits"])
        log_probs = jax.vmap(log_prob, (None, 0))(state["logits"], decisions)
        return Proposal(decisions, log_probs), state

    def update(key, state, trial):
        decisions, advantage = (
            trial.proposal.decisions,
            trial.reward - state["baseline"],
        )
        grads = jax.vmap(jax.grad(log_prob), (None, 0))(state["logits"], decisions)
        logits = state["logits"] + jnp.tensordot(advantage, grads, axes=1)
        baseline = 0.9 * state["baseline"] + 0.1 * trial.reward.mean()
        metrics = {"baseline": baseline, "entropy": -trial.proposal.log_prob.mean()}
        return {"logits": logits, "baseline": baseline}, metrics

    def best(key, state, n):
        return propose(key, state, n)[0].decisions

    def init(key):
        return {"logits": jnp.zeros((3, 3)), "baseline": jnp.float32(0)}

    return Strategy(init, propose, update, best)


def toy_evaluator():
    """Drifting weights; a child loss of NaN at step "fail_at" of the state."""
    data = jnp.array([0.0, 1.0, 0.5])

    def init(key, data):
        counters = {"steps": jnp.int32(0), "fail_at": jnp.int32(-1)}
        return {"weights": jax.random.uniform(key, (3,)), **counters}

    def improve(key, state, data, propose):
        sample_key, noise_key = jax.random.split(key)
        decisions = propose(sample_key, 1).decisions[0]
        noise = jax.random.normal(noise_key, (3,))
        weights = state["weights"] + 0.1 * data[decisions] * noise
        failed = state["steps"] == state["fail_at"]
        loss = jnp.where(failed, jnp.nan, jnp.sum(weights**2))
        state = state | {"weights": weights, "steps": state["steps"] + 1}
        return state, {"loss": loss, "accuracy": weights[0], "decisions": decisions}

    def score(state, data, decisions):
        return jnp.mean(data[decisions] + 0.01 * state["weights"])

    def evaluate(key, state, data, proposal):
        rewards = jax.vmap(lambda d: score(state, data, d))(proposal.decisions)
        return state, Trial(proposal, rewards, jnp.ones(len(rewards), bool))

    return Evaluator(data, init, improve, evaluate, score)


def toy_config(**train):
    """A config that resolves; the toy stands in for its space and evaluator."""
    settings = {"seed": 0, "rounds": 4, "checkpoint_seconds": 0.0, "steps_per_call": 4}
    return build.resolve(
        {
            "data": {"name": "digits", "validation": 100, "seed": 0},
            "space": {"name": "enas_micro"},
            "strategy": {"name": "reinforce", "learning_rate": 0.01},
            "evaluator": {"name": "shared_weights"},
            "task": {"name": "classification"},
            "schedule": SCHEDULE,
            "derive": {"n": 3},
            "train": settings | train,
            "retrain": {},
        }
    )


@pytest.fixture(scope="module")
def toy(toy_search):
    """What `build` returns, for the toy; its programs are compiled once a file."""
    return toy_search(toy_config(), SPEC, toy_strategy(), toy_evaluator())


@pytest.fixture
def final_states(monkeypatch):
    """Final `SearchState`s of the searches of a test, as lists of arrays."""
    states = []
    original = launch.driver.derive

    def spy(built, state, **kwargs):
        state = state.replace(key=jax.random.key_data(state.key))
        states.append([np.array(leaf) for leaf in jax.tree.leaves(state)])
        return original(built, state, **kwargs)

    monkeypatch.setattr(launch.driver, "derive", spy)
    return states


# ---- continuing ---------------------------------------------------------------------


@pytest.mark.parametrize("first, ticks", [(2, 4), (3, 7)])
def test_half_a_restart_and_the_other_half_equal_the_whole(
    toy, tmp_path, final_states, first, ticks, comparable
):
    search(toy_config(), tmp_path / "whole", built=toy)
    search(toy_config(rounds=first), tmp_path / "halves", built=toy)
    config = toy_config(steps_per_call=ticks)
    search(config, tmp_path / "halves", built=toy)
    for whole, halves in zip(final_states[0], final_states[2], strict=True):
        np.testing.assert_array_equal(whole, halves)
    assert comparable(tmp_path / "whole") == comparable(tmp_path / "halves")


def interrupt_at(monkeypatch, toy, tick):
    """A toy whose call from this tick on is met by SIGTERM in its course."""

    def run(state, ticks):
        if ticks and int(state.step) >= tick:
            os.kill(os.getpid(), signal.SIGTERM)
        return toy.loop.run(state, ticks)

    loop = toy.loop._replace(run=run)
    return build.Search(**{**vars(toy), "loop": loop})


@pytest.mark.parametrize("tick", [4, 12])
def test_sigterm_saves_in_the_middle_of_a_round(
    toy, tmp_path, final_states, monkeypatch, tick, comparable
):
    search(toy_config(), tmp_path / "whole", built=toy)
    stopped = interrupt_at(monkeypatch, toy, tick)
    config = toy_config(checkpoint_seconds=1e9)
    with pytest.raises(Interrupted) as stop:
        search(config, tmp_path / "stopped", built=stopped)
    assert stop.value.signum == signal.SIGTERM
    assert not (tmp_path / "stopped" / "result.json").exists()
    search(config, tmp_path / "stopped", built=toy)
    for whole, stopped in zip(*final_states, strict=True):
        np.testing.assert_array_equal(whole, stopped)
    assert comparable(tmp_path / "whole") == comparable(tmp_path / "stopped")


def test_a_crash_repeats_the_steps_since_the_checkpoint(
    toy, tmp_path, final_states, monkeypatch, comparable
):
    search(toy_config(), tmp_path / "whole", built=toy)
    calls = []

    def save_twice(self, step, *rest):
        if len(calls) < 2:
            calls.append(step)
            original(self, step, *rest)

    def crash(state, ticks):
        if ticks and int(state.step) >= 16:
            raise RuntimeError("killed")
        return toy.loop.run(state, ticks)

    original = launch.book.Checkpoints.save
    with monkeypatch.context() as patch:
        patch.setattr(launch.book.Checkpoints, "save", save_twice)
        broken = build.Search(**{**vars(toy), "loop": toy.loop._replace(run=crash)})
        with pytest.raises(RuntimeError, match="killed"):
            search(toy_config(), tmp_path / "killed", built=broken)
    assert len(calls) == 2
    search(toy_config(), tmp_path / "killed", built=toy)
    for whole, killed in zip(*final_states, strict=True):
        np.testing.assert_array_equal(whole, killed)
    assert comparable(tmp_path / "whole") == comparable(tmp_path / "killed")


def test_a_truncated_checkpoint_gives_way_to_the_one_before(
    toy, tmp_path, final_states, capsys, comparable
):
    search(toy_config(), tmp_path / "whole", built=toy)
    halves = tmp_path / "halves"
    search(toy_config(rounds=2), halves, built=toy)
    steps = sorted((halves / "checkpoints").iterdir(), key=lambda path: int(path.name))
    assert len(steps) == 2
    for path in steps[-1].rglob("*"):
        if path.is_file():
            os.truncate(path, path.stat().st_size // 2)
    search(toy_config(), halves, built=toy)
    assert f"checkpoint {steps[-1]} is damaged" in capsys.readouterr().err
    for whole, repaired in zip(final_states[0], final_states[2], strict=True):
        np.testing.assert_array_equal(whole, repaired)
    assert comparable(tmp_path / "whole") == comparable(halves)


def test_a_finished_search_is_not_run_again(toy, tmp_path):
    first = search(toy_config(), tmp_path, built=toy)

    def never(*_):
        raise AssertionError("the search ran again")

    idle = build.Search(**{**vars(toy), "loop": toy.loop._replace(run=never)})
    assert search(toy_config(), tmp_path, built=idle) == first


# ---- what is written ----------------------------------------------------------------


def test_the_result_and_its_company(toy, tmp_path, capsys):
    result = search(toy_config(), tmp_path, built=toy)
    assert set(result) == {
        "space",
        "strategy",
        "best",
        "text",
        "candidates",
        "budget",
        "diagnostics",
        "seed",
        "config_sha256",
    }
    assert set(result["best"]) == {"decisions", "genotype", "reward"}
    assert result["budget"]["scored"] == 3 * 2 * 4
    assert result["budget"]["child_steps"] == 4 * 3
    rewards = [candidate["reward"] for candidate in result["candidates"]]
    assert rewards == sorted(rewards, reverse=True) and len(rewards) == 3
    assert len({tuple(c["decisions"]) for c in result["candidates"]}) == 3
    assert result["best"]["reward"] == rewards[0]
    assert SPEC.decode(result["best"]["genotype"]) == tuple(result["best"]["decisions"])
    assert json.loads((tmp_path / "result.json").read_text()) == result
    assert json.loads((tmp_path / "config.json").read_text())["train"]["rounds"] == 4
    assert len(read_trials(tmp_path)) == 24
    assert [record["round"] for record in read_rounds(tmp_path)] == [0, 1, 2, 3]
    assert list((tmp_path / "tensorboard").glob("events.*"))
    out = capsys.readouterr().out
    assert "warm-up: the policy does not learn yet" in out
    assert out.count("round ") == 4


def test_compiling_is_told_where_something_compiles(toy, tmp_path, capsys):
    fresh = build.Search(**{**vars(toy), "compiled": set()})
    for seed in (0, 1):
        search(toy_config(seed=seed), tmp_path / str(seed), built=fresh)
    assert capsys.readouterr().out.count("compiling") == 1


def test_the_best_so_far_is_shown_where_it_is_another(toy, tmp_path, capsys):
    search(toy_config(show_every=1), tmp_path, built=toy, command="python -m x")
    shown = re.findall(r"best after round (\d), reward", capsys.readouterr().out)
    best, expected = None, []
    for round in range(1, 5):
        rows = [row for row in read_trials(tmp_path) if row[1] < round and row[5]]
        found = max(rows, key=lambda row: row[4], default=(None,) * 5)[3]
        if found != best:
            expected.append(str(round))
        best = found
    assert shown == expected
    assert (tmp_path / "commands.txt").read_text() == "python -m x\n"


def test_a_drawing_that_fails_is_told_once_and_ends_no_search(
    toy, tmp_path, capsys, monkeypatch
):
    def fail(*_):
        raise KeyError("op_right")

    monkeypatch.setattr("launch.figures.graphs.graphs", fail)
    search(toy_config(show_every=1), tmp_path, built=toy)
    said = capsys.readouterr()
    assert "best after" not in said.out
    assert said.err.count("warning: the best is not drawn: KeyError: 'op_right'") == 1


def test_a_quiet_search_prints_nothing(toy, tmp_path, capsys):
    search(toy_config(show_every=1), tmp_path, built=toy, quiet=True)
    assert capsys.readouterr() == ("", "")


def test_collapse_is_warned_of_once_and_recorded(toy, tmp_path, capsys, monkeypatch):
    found = {"round": 2, "reason": "all samples are equal", "advice": "change it"}
    monkeypatch.setattr(
        launch.book, "collapse", lambda spec, r: found if r["round"] >= 2 else None
    )
    result = search(toy_config(), tmp_path, built=toy)
    assert result["diagnostics"]["collapse"] == found
    assert capsys.readouterr().err.count("all samples are equal; change it") == 1


# ---- what goes wrong ----------------------------------------------------------------


def test_a_loss_that_is_not_finite_stops_the_search(toy, tmp_path):
    def init(key):
        state = toy.loop.init(key)
        return state.replace(evaluator=state.evaluator | {"fail_at": jnp.int32(7)})

    broken = build.Search(**{**vars(toy), "loop": toy.loop._replace(init=init)})
    with pytest.raises(SearchFailed) as failure:
        search(toy_config(), tmp_path, built=broken)
    # Child step 7 is tick 9: round 0 has 3 ticks, round 1 has 5.
    text = str(failure.value)
    assert "child loss of step 9 (round 3) is not finite" in text
    assert '"op0": ' in text
    assert f"last good checkpoint: {tmp_path / 'checkpoints' / '8'}" in text
    assert not (tmp_path / "result.json").exists()
    assert all(np.isfinite(row[4]) for row in read_trials(tmp_path))


def test_no_finite_score_of_a_candidate_is_no_result(toy, tmp_path):
    loop = toy.loop._replace(score=lambda state, decisions: np.nan)
    broken = build.Search(**{**vars(toy), "loop": loop})
    with pytest.raises(SearchFailed, match="each of the 3 candidates .*learning_rate"):
        search(toy_config(), tmp_path, built=broken)
    assert not (tmp_path / "result.json").exists()


def test_a_workdir_of_another_config_is_refused(toy, tmp_path):
    search(toy_config(rounds=2), tmp_path, built=toy)
    with pytest.raises(UserError, match=r"train.seed \(0 -> 1\)") as refusal:
        search(toy_config(seed=1), tmp_path, built=toy)
    assert str(tmp_path) in str(refusal.value)


def test_rounds_and_logging_may_change(toy, tmp_path):
    search(toy_config(rounds=2), tmp_path, built=toy)
    search(toy_config(rounds=3, log_every=2, keep=3), tmp_path, built=toy)
    assert len(read_rounds(tmp_path)) == 3


def test_a_workdir_that_cannot_be_written_is_refused(toy, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write to workdir"):
        search(toy_config(), tmp_path / "file" / "run", built=toy)


# ---- the program --------------------------------------------------------------------

ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["enas_micro_digits", "random_digits"])
def test_a_killed_search_goes_on_by_the_same_command(tmp_path, name, comparable):
    rounds = ["--config.train.rounds=8", "--config.train.checkpoint_seconds=0"]
    smoke = f"--config=configs/{name}.py:smoke"
    arguments = [smoke, *rounds, "--config.train.steps_per_call=2"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}

    def start(workdir, program=("-m", "launch.search")):
        return subprocess.Popen(
            [sys.executable, *program, *arguments, f"--workdir={workdir}"],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )

    whole = start(tmp_path / "whole")
    assert whole.communicate(timeout=900) and whole.returncode == 0
    for number, code in ((signal.SIGTERM, 143), (signal.SIGKILL, -9)):
        stopped = start(tmp_path / "stopped")
        for line in stopped.stdout:
            if line.startswith("round "):
                break
        stopped.send_signal(number)
        out, _ = stopped.communicate(timeout=10)
        assert stopped.returncode == code
        if number == signal.SIGTERM:
            assert "to continue: python" in out and "--workdir=" in out
    rest = start(tmp_path / "stopped", ["launch/search.py"])
    out, _ = rest.communicate(timeout=900)
    assert rest.returncode == 0
    assert "python -m launch.retrain --workdir=" in out
    assert comparable(tmp_path / "whole") == comparable(tmp_path / "stopped")
