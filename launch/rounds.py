"""Round records out of the rows of compiled calls, and the diagnosis of a collapse.

Records do not depend on how a round was cut into calls: rows are kept until the round
is complete, and what is kept of an unfinished one goes into the checkpoint as JSON.
"""

import collections
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from controller.graph_spec import trim
from controller.loop import Log, Schedule
from controller.spec import DecisionSpec
from controller.strategies.differentiable.named import (
    ABSENT,
    SKIPS,
    choice_of_absence,
)
from launch.store import Row

ALL_BUT_UNIFORM = 0.99  # of the uniform entropy, that relaxed weights have at first
MOST_SKIPS = 0.5  # of the ops that relaxed weights derive to
IDLE_OPS = frozenset({*SKIPS, *ABSENT})
MOST_OF_ONE = 0.95  # of all ops, that one op may be
FEWEST_OPS = 4  # of an architecture, of which that would be no chance

Record = dict[str, Any]
"""What a round did.

round, warm_up: its number, and whether only weights were trained
scored, distinct: architectures scored, and the share of different ones among them
reward_mean, reward_max: over valid trials; None where none was scored, as all below
baseline, entropy: the policy's, at the end and on average (nats an architecture)
alpha_entropy: of relaxed weights at the end (nats), mean over rows; as all of these,
    None where a strategy is not relaxed
row_entropy: the same of each row
hessian: dominant eigenvalue of the validation loss's Hessian in the logits of relaxed
    weights, the last one measured; None where none was
skips, changes: skip connections of the derived architecture at the end, and how often
    one of its decisions changed
derived_skip_share: share of them among its ops, on average
op_histogram: share of each op, see the function of that name
skip_share: share of "yes" among skip decisions; None where the space has none
child_loss, child_accuracy: means over the child steps, on training batches
seconds, steps_per_second: of the compiled calls, compilation apart
"""


class Rounds:
    """Gathers rows into round records.

    Args:
      spec: of the space.
      schedule: says when a round is complete.
      partial: what `partial` returned when the state was saved, or None.
      invalid: why a trial is not valid, in words.
    """

    def __init__(
        self,
        spec: DecisionSpec,
        schedule: Schedule,
        partial: Mapping | None = None,
        invalid: str | None = None,
    ):
        self._spec = spec
        self._schedule = schedule
        self._invalid = invalid
        self._rows = _empty() if partial is None else _copy(partial)

    def partial(self) -> dict[str, Any]:
        """The rows of the round that is not complete, as JSON."""
        return _copy(self._rows)

    def add(
        self, log: Log, count: int, seconds: float
    ) -> tuple[list[Row], list[Record]]:
        """Takes the rows of one call.

        Args:
          log: of a compiled call, on the host.
          count: how many of its rows to take.
          seconds: that the call ran.

        Returns:
          trials for the store, and the records of the rounds that became complete.
        """
        trials, records = [], []
        for i in range(count):
            if log.learn[i]:
                trials += self._add_policy_row(log, i)
            else:
                _extend(self._rows["child"], log.child, i)
            self._rows["seconds"] += seconds / count
            self._rows["ticks"] += 1
            round = int(log.round[i])
            if self._rows["ticks"] == self._schedule.phase(round).ticks:
                records.append(self._record(round))
                self._rows = _empty()
        return trials, records

    def _add_policy_row(self, log: Log, i: int) -> list[Row]:
        rows = self._rows
        first = len(rows["reward"])
        _extend(rows["policy"], log.policy, i)
        rows["decisions"] += [list(trim(row)) for row in log.decisions[i]]
        rows["reward"] += log.reward[i].tolist()
        rows["valid"] += log.valid[i].tolist()
        return [
            self._trial(log, i, j, first + j) for j in range(log.decisions.shape[1])
        ]

    def _trial(self, log: Log, i: int, j: int, index: int) -> Row:
        """Sample j of row i, for the store."""
        decisions, valid = list(trim(log.decisions[i, j])), bool(log.valid[i, j])
        parent = -1 if log.parent is None else int(log.parent[i, j])
        value = math.nan if log.value is None else float(log.value[i, j])
        reason = self._invalid if log.reason is None else log.reason[i, j]
        return Row(
            round=int(log.round[i]),
            index=index,
            decisions=text_of(decisions),
            reward=float(log.reward[i, j]) if valid else None,
            valid=valid,
            log_prob=float(log.log_prob[i, j]),
            encoding=self._spec.encode(decisions),
            value=value if math.isfinite(value) else None,
            cost=None if log.cost is None else _cost(log.cost[i, j].tolist()),
            parent=None if parent < 0 else parent,
            reason=None if valid else reason or self._invalid,
            worker=None if log.worker is None else log.worker[i, j],
        )

    def _record(self, round: int) -> Record:
        rows = self._rows
        rewards = [r for r, ok in zip(rows["reward"], rows["valid"], strict=True) if ok]
        decisions = [tuple(row) for row in rows["decisions"]]
        scored = len(decisions)
        return {
            "round": round,
            "warm_up": not self._schedule.phase(round).policy_steps,
            "scored": scored,
            "distinct": len(set(decisions)) / scored if scored else None,
            "reward_mean": _mean(rewards),
            "reward_max": max(rewards, default=None),
            "baseline": (rows["policy"].get("baseline") or [None])[-1],
            "entropy": _mean(rows["policy"].get("entropy", [])),
            **_relaxed(rows["policy"]),
            "op_histogram": op_histogram(self._spec, decisions),
            "skip_share": _skip_share(self._spec, decisions),
            "child_loss": _mean(rows["child"].get("loss", [])),
            "child_accuracy": _mean(rows["child"].get("accuracy", [])),
            "seconds": rows["seconds"],
            "steps_per_second": rows["ticks"] / max(rows["seconds"], 1e-9),
        }


def _relaxed(policy: Mapping[str, list[float]]) -> dict[str, Any]:
    """What a round's record says of relaxed weights."""
    names = ("alpha_entropy", "skips")
    last = {name: (policy.get(name) or [None])[-1] for name in names}
    prefix = "alpha_entropy/"
    rows = {
        name.removeprefix(prefix): values[-1]
        for name, values in policy.items()
        if name.startswith(prefix)
    }
    return {
        **last,
        "row_entropy": rows or None,
        "hessian": next(filter(math.isfinite, policy.get("hessian", [])[::-1]), None),
        "derived_skip_share": _mean(policy.get("skip_share", [])),
        "changes": math.fsum(policy["changes"]) if "changes" in policy else None,
    }


def _cost(objectives: list[float]) -> float | str:
    return objectives[0] if len(objectives) == 1 else json.dumps(objectives)


def text_of(decisions: Sequence[int]) -> str:
    """Decisions as the store writes them."""
    return ",".join(map(str, decisions))


def decisions_of(text: str) -> tuple[int, ...]:
    """Reads what `text_of` wrote; there are none in an empty text."""
    return tuple(map(int, text.split(","))) if text else ()


def op_histogram(
    spec: DecisionSpec, decisions: Sequence[Sequence[int]]
) -> dict[str, float]:
    """Share of each op among those that were chosen; empty where none was.

    Ops are decisions of group "op", and others that may take one of `IDLE_OPS`, as the
    edges of DARTS's two cells.  Where a rule says how many edges are absent, an absent
    one is no op.
    """
    members = _op_decisions(spec)
    counts = collections.Counter(
        spec.decisions[t].choices[row[t]] for row in decisions for t in members
    )
    names = dict.fromkeys(name for t in members for name in _ops(spec, t))
    total = sum(counts[name] for name in names)
    return {name: counts[name] / total for name in names} if total else {}


def _op_decisions(spec: DecisionSpec) -> list[int]:
    return [
        t
        for t, decision in enumerate(spec.decisions)
        if decision.group == "op" or IDLE_OPS.intersection(decision.choices)
    ]


def _ops(spec: DecisionSpec, t: int) -> list[str]:
    """The choices of a decision that the histogram counts."""
    absent = choice_of_absence(spec)
    return [name for i, name in enumerate(spec.decisions[t].choices) if i != absent]


def collapse(spec: DecisionSpec, record: Record) -> dict[str, Any] | None:
    """Whether the policy of a round has collapsed.

    It has where its entropy is below 2 % of the uniform policy's, where nearly all
    samples are equal, where ops that compute nothing (or skips) take over, or where
    nearly all ops are the same one.  Of relaxed weights the architecture that they
    derive to counts; more than half of its ops as skips are too many.  While the
    weights are all but uniform, what they derive to is chance.

    Args:
      spec: of the space.
      record: of a round in which a policy learnt; what has neither entropy is none, and
        warm-up never collapses.

    Returns:
      None, or {"round", "reason", "advice"}.
    """
    if record["warm_up"] or not record["scored"]:
        return None
    idle = sum(record["op_histogram"].get(name, 0.0) for name in IDLE_OPS)
    much_idle = idle > max(0.7, (1 + _uniform_idle(spec)) / 2)
    if record.get("alpha_entropy") is not None:
        return _relaxed_collapse(spec, record, idle if much_idle else None)
    if record["entropy"] is None:
        return None
    uniform = sum(math.log(n) for n in spec.num_choices)
    entropy, distinct = record["entropy"], record["distinct"]
    possible = min(record["scored"], spec.size())
    different = round(distinct * record["scored"])
    weights = "lengthen schedule.warmup_rounds or raise schedule.uniform"
    policy = "raise strategy.entropy_weight or lower strategy.learning_rate"
    if much_idle:
        reason, advice = f"{idle:.0%} of all ops are skips or none", weights
    elif one_op := _one_op(spec, record, f"{weights}; {policy}"):
        return one_op
    elif (record["skip_share"] or 0.0) > 0.95:
        reason = f"{record['skip_share']:.0%} of all skip connections are taken"
        advice = "raise strategy.skip_weight"
    elif entropy < 0.02 * uniform:
        reason = f"the policy's entropy is {entropy:.3g} nats, uniform {uniform:.3g}"
        advice = f"{policy}, or {weights}"
    elif possible >= 8 and different <= max(1, 0.1 * possible):
        reason = f"only {different} of {record['scored']} samples are different"
        advice = f"{policy}, or {weights}"
    else:
        return None
    return {"round": record["round"], "reason": reason, "advice": advice}


def _relaxed_collapse(
    spec: DecisionSpec, record: Record, idle: float | None
) -> dict[str, Any] | None:
    """That of what relaxed weights derive to; `idle` is its idle share if too large."""
    uniform = _mean([math.log(n) for n in spec.num_choices])
    if record["alpha_entropy"] > ALL_BUT_UNIFORM * uniform:
        return None
    skips = record["derived_skip_share"]
    early = "stop early (fewer train.rounds)"
    if skips > MOST_SKIPS:
        reason = f"{skips:.0%} of the derived ops are skips"
    elif idle is not None:
        reason = f"{idle:.0%} of the derived ops are skips or none"
    else:
        advice = f"lengthen schedule.warmup_rounds, or {early}"
        return _one_op(spec, record, advice)
    advice = (
        "cap skips, and forbid none, as P-DARTS does (strategy.name=p_darts, "
        f"max_skips), or {early}"
    )
    return {"round": record["round"], "reason": reason, "advice": advice}


def _one_op(spec: DecisionSpec, record: Record, advice: str) -> dict[str, Any] | None:
    """A collapse to one op, whatever it computes."""
    shares = record["op_histogram"]
    op = max(shares, key=shares.get, default=None)
    few = len(_op_decisions(spec)) < FEWEST_OPS or len(shares) < 2
    if op is None or few or shares[op] <= MOST_OF_ONE:
        return None
    reason = f"{shares[op]:.0%} of all ops are {op}"
    return {"round": record["round"], "reason": reason, "advice": advice}


def _uniform_idle(spec: DecisionSpec) -> float:
    choices = [_ops(spec, t) for t in _op_decisions(spec)]
    shares = [len(IDLE_OPS.intersection(names)) / len(names) for names in choices]
    return _mean(shares) or 0.0


def _skip_share(spec, decisions) -> float | None:
    members = spec.groups.get("skip", ())
    if not members or not decisions:
        return None
    return float(np.mean([[row[t] for t in members] for row in decisions]))


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


def _empty() -> dict[str, Any]:
    lists = {"decisions": [], "reward": [], "valid": []}
    return {"ticks": 0, "seconds": 0.0, "child": {}, "policy": {}, **lists}


def _copy(rows: Mapping[str, Any]) -> dict[str, Any]:
    copied = {k: list(v) if isinstance(v, list) else v for k, v in rows.items()}
    for kind in ("child", "policy"):
        copied[kind] = {name: list(values) for name, values in rows[kind].items()}
    return copied


def _extend(lists: dict[str, list[float]], metrics: Mapping[str, Any], i: int) -> None:
    for name, values in metrics.items():
        lists.setdefault(name, []).append(float(values[i]))
