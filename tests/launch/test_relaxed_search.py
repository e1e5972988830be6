"""A differentiable search on a toy: continuing bit for bit, and telling of skips."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import launch.driver
from controller.spec import Decision, DecisionSpec
from controller.strategies.differentiable.asap import asap
from controller.strategies.differentiable.p_darts import p_darts
from controller.types import Evaluator, Trial
from launch import build
from launch.command import UserError
from launch.driver import search
from launch.store import read_rounds

OPS = ("none", "skip_connect", "conv")
SPEC = DecisionSpec(tuple(Decision(f"edge{t}", OPS, node=t) for t in range(3)))
SCHEDULE = {"child_steps": 3, "policy_steps": 3, "alternate": True, "warmup_rounds": 1}


def toy_evaluator():
    """Weights that drift with what is proposed; skips have the best gradient."""

    def init(key, data):
        return jax.random.uniform(key, (3,))

    def improve(key, weights, data, propose):
        proposal = propose(key, 1)
        share = proposal.relaxed["weights"]["op"].mean(axis=0)
        weights = weights + 0.1 * share * jax.random.normal(key, (3,))
        loss = jnp.sum(weights**2)
        return weights, {"loss": loss, "decisions": proposal.decisions[0]}

    def score(weights, data, decisions):
        return jnp.mean(data[decisions]) + 0.01 * weights.sum()

    def evaluate(key, weights, data, proposal):
        noise = 0.1 * jax.random.normal(key, (3, 3)) * weights[None]
        gradient = {"op": noise - data[None]}
        reward = score(weights, data, proposal.decisions[0])[None]
        valid = jnp.ones(1, bool)
        return weights, Trial(proposal, reward, valid, gradient=gradient)

    data = jnp.array([0.0, 1.0, 0.5])
    return Evaluator(data, init, improve, evaluate, score, gradients=True)


def toy_config(**train):
    """A config that resolves; the toy stands in for its space and evaluator."""
    settings = {"seed": 0, "rounds": 8, "checkpoint_seconds": 0.0, "steps_per_call": 4}
    return build.resolve(
        {
            "data": {"name": "digits", "validation": 100, "seed": 0},
            "space": {"name": "nasbench201"},
            "strategy": {"name": "asap", "temperature": 1.0},
            "evaluator": {"name": "relaxed"},
            "task": {"name": "classification"},
            "schedule": SCHEDULE,
            "derive": {"n": 1},
            "train": settings | train,
            "retrain": {},
        }
    )


@pytest.fixture(scope="module")
def toy(toy_search):
    options = {"temperature": 1.0, "decay": 0.8, "learning_rate": 0.1}
    strategy = asap(SPEC, steps_per_round=3, **options)
    return toy_search(toy_config(), SPEC, strategy, toy_evaluator())


@pytest.mark.parametrize("first, ticks", [(3, 4), (5, 7)])
def test_half_a_restart_and_the_other_half_equal_the_whole(
    toy, tmp_path, first, ticks, comparable
):
    search(toy_config(), tmp_path / "whole", built=toy)
    search(toy_config(rounds=first), tmp_path / "halves", built=toy)
    search(toy_config(steps_per_call=ticks), tmp_path / "halves", built=toy)
    assert comparable(tmp_path / "whole") == comparable(tmp_path / "halves")


def test_records_and_the_warning_tell_of_skips(toy, tmp_path, capsys):
    result = search(toy_config(), tmp_path, built=toy)
    assert result["best"]["decisions"] == [1, 1, 1]
    assert result["budget"]["child_steps"] == 24 and result["budget"]["scored"] == 21
    warm_up, *records = read_rounds(tmp_path)
    assert warm_up["alpha_entropy"] is None and warm_up["row_entropy"] is None
    entropy = [record["alpha_entropy"] for record in records]
    assert entropy[-1] < 0.1 < 0.9 < entropy[0] <= np.log(3)
    assert set(records[0]["row_entropy"]) == {"edge0", "edge1", "edge2"}
    assert np.mean([*records[0]["row_entropy"].values()]) == pytest.approx(entropy[0])
    assert records[-1]["skips"] == 3 and records[-1]["changes"] == 0
    assert records[-1]["derived_skip_share"] == 1.0
    collapse = result["diagnostics"]["collapse"]
    assert "of the derived ops are skips" in collapse["reason"]
    assert "p_darts" in collapse["advice"] and "stop early" in collapse["advice"]
    shown = capsys.readouterr()
    assert shown.err.count("warning: collapse") == 1
    assert "alpha entropy" in shown.out and "skips 3" in shown.out


# ---- stages -------------------------------------------------------------------------


def staged_config(**train):
    """Two stages whose spaces differ, of four rounds each."""
    config = toy_config(rounds=4, stages=({"cells": 1}, {"cells": 2}), **train)
    strategy = {"name": "p_darts", "drops": (1,), "stage_rounds": 3, "rest_rounds": 1}
    return build.resolve(config.to_dict() | {"strategy": strategy})


@pytest.fixture
def seen(toy_search, monkeypatch):
    """The configs that `build` got, with the toy's space and evaluator for its own."""
    configs = []

    def built(config):
        configs.append(config)
        options = {k: v for k, v in config.strategy.to_dict().items() if k != "name"}
        strategy = p_darts(SPEC, steps_per_round=3, **options)
        return toy_search(config, SPEC, strategy, toy_evaluator())

    monkeypatch.setattr(launch.driver, "build", built)
    return configs


def test_a_stage_takes_over_the_ops_that_the_one_before_has_kept(tmp_path, seen):
    result = search(staged_config(), tmp_path)
    first, second = seen
    assert (first.space.cells, second.space.cells) == (1, 2)
    assert first.strategy.kept is None and first.strategy.stage == 0
    earlier = json.loads((tmp_path / "stage_1" / "result.json").read_text())
    kept = earlier["diagnostics"]["kept"]
    assert kept == second.strategy.kept.to_dict() == result["diagnostics"]["kept"]
    assert all(len(names) == 2 and "skip_connect" in names for names in kept.values())
    assert sum(result["best"]["decisions"]) >= 3 and second.strategy.stage == 1
    seen.clear()
    assert search(staged_config(), tmp_path) == result  # nothing is searched again


def test_stages_of_unknown_arguments_are_refused_before_the_first(tmp_path):
    with pytest.raises(UserError, match=r"stages\[1\] has no key 'cell'; did you mean"):
        toy_config(stages=({"cells": 1}, {"cell": 2}))


def test_stages_that_would_drop_nothing_are_refused(tmp_path):
    config = staged_config()
    with config.unlocked():
        config.strategy.stage_rounds = 4
    with pytest.raises(UserError, match="stage_rounds is 4; each of train.stages .* 3"):
        search(config, tmp_path)
