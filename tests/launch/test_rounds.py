"""Round records do not depend on calls; collapse is told apart from convergence."""

import math

import jax
import numpy as np
import pytest

from child_models.spaces import SPACES
from controller.loop import Log, schedule
from controller.spec import Decision, DecisionSpec
from launch.rounds import Rounds, collapse, op_histogram, text_of

OPS = ("none", "skip_connect", "conv")
SPEC = DecisionSpec(tuple(Decision(f"op{t}", OPS) for t in range(4)))
SKIPS = DecisionSpec((Decision("op", OPS), Decision("skip", ("no", "yes"), "skip")))
SCHEDULE = schedule(rounds=3, child_steps=2, policy_steps=3, samples=2, warmup_rounds=1)
TICKS = [(0, False)] * 2 + [(r, t >= 2) for r in (1, 2) for t in range(5)]


def rows(start, stop):
    """The log of the ticks [start, stop) of a search by SCHEDULE."""
    rng = np.random.default_rng(0)
    n, room = len(TICKS), 15
    full = Log(
        count=np.int32(stop - start),
        round=np.array([r for r, _ in TICKS]),
        learn=np.array([learn for _, learn in TICKS]),
        child={"loss": rng.random(n), "accuracy": rng.random(n)},
        policy={"baseline": rng.random(n), "entropy": rng.random(n) + 2},
        decisions=rng.integers(0, 3, (n, 2, 4)),
        reward=rng.random((n, 2)),
        valid=rng.random((n, 2)) < 0.8,
        log_prob=-rng.random((n, 2)),
    )

    def cut(x):
        if not x.ndim:
            return x
        padding = [(0, room - (stop - start))] + [(0, 0)] * (x.ndim - 1)
        return np.pad(x[start:stop], padding)

    return jax.tree.map(cut, full)


def gather(cuts, restart=False):
    """Trials and records, wall times aside, of a search cut into calls."""
    rounds, trials, records = Rounds(SPEC, SCHEDULE), [], []
    for start, stop in zip(cuts, cuts[1:], strict=False):
        new_trials, new_records = rounds.add(rows(start, stop), stop - start, 1.0)
        trials += new_trials
        records += new_records
        if restart:
            rounds = Rounds(SPEC, SCHEDULE, rounds.partial())
    for record in records:
        del record["seconds"], record["steps_per_second"]
    return trials, records


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("cuts", [range(13), (0, 1, 5, 6, 12), (0, 7, 12)])
def test_how_a_search_is_cut_into_calls_changes_no_record(cuts, restart):
    assert gather(list(cuts), restart) == gather([0, 12])


def test_a_record_holds_the_means_of_its_round():
    trials, records = gather([0, 12])
    log = rows(0, 12)
    warmup, first, _ = records
    assert warmup["warm_up"] and warmup["reward_mean"] is None and not warmup["scored"]
    assert warmup["child_loss"] == pytest.approx(log.child["loss"][:2].mean())
    policy = slice(4, 7)
    good = log.reward[policy][log.valid[policy]]
    assert first["reward_mean"] == pytest.approx(good.mean())
    assert first["reward_max"] == good.max()
    assert first["baseline"] == log.policy["baseline"][6]
    assert first["entropy"] == pytest.approx(log.policy["entropy"][policy].mean())
    assert first["child_loss"] == pytest.approx(log.child["loss"][2:4].mean())
    decisions = log.decisions[policy].reshape(-1, 4)
    assert first["distinct"] == len(np.unique(decisions, axis=0)) / 6
    assert first["op_histogram"]["conv"] == pytest.approx(np.mean(decisions == 2))
    assert [trial[:2] for trial in trials] == [(r, i) for r in (1, 2) for i in range(6)]
    assert trials[3][2] == text_of(log.decisions[5, 1])


def test_a_record_has_the_last_eigenvalue_that_was_measured():
    log = rows(0, 12)
    measured = np.full(15, np.nan)
    measured[[4, 5]] = 1.5, -2.5
    log = log._replace(policy=log.policy | {"hessian": measured})
    _, records = Rounds(SPEC, SCHEDULE).add(log, 12, 1.0)
    assert [record["hessian"] for record in records] == [None, -2.5, None]


def test_trials_tell_value_reason_and_worker_where_they_are_known():
    log = rows(4, 6)
    known = log._replace(
        valid=np.arange(15 * 2).reshape(15, 2) % 2 == 0,
        value=np.where(log.reward > 0.5, log.reward, np.nan),
        reason=np.array([[None, "out of memory"], [None, None]]),
        worker=np.array([["host:1", "host:2"], [None, None]]),
    )
    trials, _ = Rounds(SPEC, SCHEDULE, invalid="unknown").add(known, 2, 1.0)
    assert [t.reason for t in trials] == [None, "out of memory", None, "unknown"]
    assert [t.worker for t in trials] == ["host:1", "host:2", None, None]
    values = [r if r > 0.5 else None for r in log.reward[:2].ravel()]
    assert [t.value for t in trials] == values
    trials, _ = Rounds(SPEC, SCHEDULE).add(log, 2, 1.0)
    assert {(t.value, t.worker) for t in trials} == {(None, None)}


def test_the_histogram_counts_ops_only():
    histogram = op_histogram(SKIPS, [(2, 1), (2, 0), (0, 1), (2, 1)])
    assert histogram == {"none": 0.25, "skip_connect": 0.0, "conv": 0.75}


def test_the_histogram_counts_the_edges_of_darts_cells():
    spec = SPACES["darts"](classes=10, nodes=2).spec
    ops = spec.decisions[0].choices
    row = [ops.index(name) for name in ("skip_connect", "sep_conv_3x3", "none")]
    rows = [[*row[:2], *row, *row[:2], *row]]
    assert spec.is_legal(np.array(rows[0]))
    histogram = op_histogram(spec, rows)
    assert histogram["skip_connect"] == histogram["sep_conv_3x3"] == 0.5
    assert "none" not in histogram and len(histogram) == 7


def test_the_histogram_counts_blocks_that_are_left_out_of_a_mobile_network():
    spec = SPACES["mobile"](classes=10, widths=(8,), blocks=(4,), strides=(1,)).spec
    row = [names.index("zero") if "zero" in names else 0 for names in names_of(spec)]
    histogram = op_histogram(spec, [row])
    assert histogram["zero"] == row.count(6) / 4 > 0


def names_of(spec):
    return [decision.choices for decision in spec.decisions]


def record(**changes):
    healthy = {
        "round": 7,
        "warm_up": False,
        "scored": 100,
        "distinct": 0.5,
        "entropy": 2.0,
        "op_histogram": {"none": 0.3, "skip_connect": 0.3, "conv": 0.4},
        "skip_share": None,
    }
    return healthy | changes


def test_a_healthy_round_is_no_collapse():
    assert collapse(SPEC, record()) is None


@pytest.mark.parametrize(
    "changes, reason, advice",
    [
        ({"entropy": 0.01}, "entropy is 0.01 nats", "entropy_weight"),
        ({"distinct": 0.04}, "only 4 of 100 samples", "learning_rate"),
        (
            {"op_histogram": {"none": 0.5, "skip_connect": 0.4, "conv": 0.1}},
            "90% of all ops are skips or none",
            "schedule.warmup_rounds",
        ),
        (
            {"op_histogram": {"none": 0.0, "skip_connect": 0.02, "conv": 0.98}},
            "98% of all ops are conv",
            "schedule.warmup_rounds",
        ),
        ({"skip_share": 0.99}, "99% of all skip connections", "skip_weight"),
    ],
)
def test_each_collapse_says_what_to_change(changes, reason, advice):
    found = collapse(SPEC, record(**changes))
    assert reason in found["reason"]
    assert advice in found["advice"]
    assert found["round"] == 7


def test_relaxed_weights_collapse_into_skips_and_none():
    relaxed = {"alpha_entropy": 0.5, "entropy": None, "distinct": 0.01}
    healthy = record(**relaxed, derived_skip_share=0.5)
    assert collapse(SPEC, healthy) is None
    found = collapse(SPEC, record(**relaxed, derived_skip_share=0.75))
    assert "75% of the derived ops are skips" in found["reason"]
    assert "p_darts" in found["advice"]
    assert (
        collapse(SPEC, record(**relaxed, derived_skip_share=1.0, warm_up=True)) is None
    )
    absent = {"none": 0.9, "skip_connect": 0.05, "conv": 0.05}
    found = collapse(SPEC, healthy | {"op_histogram": absent})
    assert "95% of the derived ops are skips or none" in found["reason"]
    assert "max_skips" in found["advice"] and "stop early" in found["advice"]


def test_what_uniform_weights_derive_to_is_chance():
    uniform = np.mean([math.log(n) for n in SPEC.num_choices])
    skips = {"entropy": None, "derived_skip_share": 1.0}
    assert collapse(SPEC, record(alpha_entropy=uniform - 1e-4, **skips)) is None
    assert collapse(SPEC, record(alpha_entropy=0.9 * uniform, **skips)) is not None


def test_relaxed_weights_collapse_into_one_op_that_computes():
    shares = {"none": 0.0, "skip_connect": 0.0, "conv": 1.0}
    relaxed = record(alpha_entropy=0.5, derived_skip_share=0.0, op_histogram=shares)
    found = collapse(SPEC, relaxed)
    assert found["reason"] == "100% of all ops are conv"
    assert "stop early" in found["advice"]
    few = DecisionSpec(SPEC.decisions[:3])  # of three ops that happens by chance
    assert collapse(few, relaxed) is None


def test_warm_up_and_tiny_samples_are_no_collapse():
    assert collapse(SPEC, record(entropy=0.0, warm_up=True)) is None
    assert collapse(SPEC, record(scored=4, distinct=0.25)) is None


def test_what_is_no_policy_does_not_collapse():
    assert collapse(SPEC, record(scored=40, distinct=0.03)) is not None
    assert collapse(SPEC, record(scored=40, distinct=0.03, entropy=None)) is None
