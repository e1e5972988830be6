"""Diagnoses of a search in sentences, and the tables of facts about it."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from launch.command import command_line
from launch.describe import summary as space_summary
from launch.display import duration
from launch.proxy import of_winner
from launch.reporting.run import Run, Scored
from launch.rounds import collapse
from launch.tables import verdict

_SHIFT = 0.15  # of an op's share, which is worth a sentence
_LEARNT = 0.05  # of the entropy, below which a policy has learnt little


def diagnoses(run: Run, found: Scored) -> list[tuple[str, str]]:
    """(kind, sentence) each; the kind is "good", "bad", "next" or "note"."""
    if not len(run.trials.reward):
        return [*_nothing(run), *_next(run)]
    said = [*_progress(run, found), *_policy(run), *_result(run), *_next(run)]
    if run.uncounted is not None:
        missing = f"Networks are not counted without the data set: {run.uncounted}."
        said.append(("note", missing))
    return said


def _nothing(run: Run) -> list[tuple[str, str]]:
    rounds = len(run.rounds)
    noun = "round of training has" if rounds == 1 else "rounds of training have"
    warmup = f"; {rounds} {noun} passed" if rounds else ""
    return [("bad", f"This search has scored nothing yet{warmup}.")]


def _progress(run: Run, found: Scored) -> list[tuple[str, str]]:
    trials, said = run.trials, []
    n = len(trials.reward)
    if run.result is None:
        done, planned = len(run.rounds), run.config["train"]["rounds"]
        said.append(("note", f"The search is at round {done} of {planned}."))
    if len(found.reward):
        at = int(found.first[0])
        said.append(
            (
                "note",
                f"The best reward of all trials, {found.reward[0]:.4f}, was first "
                f"reached by trial {at + 1:,} of {n:,}, in round "
                f"{trials.round[at] + 1:,}.",
            )
        )
        different = len(found.decisions) / (n - sum(trials.reasons.values()))
        said.append(
            (
                "note",
                f"{len(found.decisions):,} different architectures were scored, "
                f"{different:.0%} of all trials.",
            )
        )
    losses = [r["child_loss"] for r in run.rounds if r.get("child_loss") is not None]
    broken = sum(not math.isfinite(loss) for loss in losses)
    if broken:
        sentence = (
            f"The child loss was not finite in {broken:,} of {len(losses):,} rounds."
        )
        said.append(("bad", sentence))
    for reason, count in trials.reasons.items():
        kind = "bad" if count > 0.1 * n else "note"
        said.append((kind, f"{count:,} of {n:,} trials are not valid: {reason}."))
    return said


def _policy(run: Run) -> list[tuple[str, str]]:
    spec, said = run.space.spec, []
    learnt = [r for r in run.rounds if r.get("entropy") is not None]
    fallen = next((c for r in run.rounds if (c := collapse(spec, r))), None)
    if fallen is not None:
        sentence = (
            f"The search collapsed in round {fallen['round'] + 1}: {fallen['reason']}. "
            f"To avoid it: {fallen['advice']}."
        )
        said.append(("bad", sentence))
    if learnt and run.config["strategy"]["name"] != "random_search":
        first, last = learnt[0]["entropy"], learnt[-1]["entropy"]
        said.append(_entropy(first, last, fallen is not None))
    return [*said, *_shifts(learnt), *_relaxed(run.rounds)]


def _relaxed(rounds: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """How the weights of a relaxed supernet, and the loss's curvature, went."""
    said = []
    for name, what, unit in (
        ("alpha_entropy", "The entropy of the relaxed weights", " nats a decision"),
        ("hessian", "The dominant Hessian eigenvalue of the validation loss", ""),
    ):
        values = [r[name] for r in rounds if r.get(name) is not None]
        if values:
            went = f"from {values[0]:.3g} to {values[-1]:.3g}{unit}"
            word = "fell" if values[-1] < values[0] else "rose"
            said.append(("note", f"{what} {word} {went}."))
    return said


def _entropy(first: float, last: float, collapsed: bool) -> tuple[str, str]:
    if abs(last - first) < _LEARNT * abs(first):
        sentence = f"has hardly changed, {first:.1f} to {last:.1f} nats: it is about "
        return "note", f"The policy's entropy {sentence}as undecided as at first."
    word = "fell" if last < first else "rose"
    kind = "good" if last < first and not collapsed else "note"
    return kind, f"The policy's entropy {word} from {first:.1f} to {last:.1f} nats."


def _shifts(rounds: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """The ops whose shares changed most."""
    if len(rounds) < 2 or not rounds[0]["op_histogram"]:
        return []
    first, last = rounds[0]["op_histogram"], rounds[-1]["op_histogram"]
    changes = {op: last.get(op, 0.0) - share for op, share in first.items()}
    op = max(changes, key=lambda op: abs(changes[op]))
    if abs(changes[op]) < _SHIFT:
        return []
    word = "rose" if changes[op] > 0 else "fell"
    shares = f"from {first[op]:.0%} to {last.get(op, 0.0):.0%}"
    return [("note", f"{op} {word} most, {shares} of the sampled ops.")]


def _result(run: Run) -> list[tuple[str, str]]:
    said = []
    if run.result is not None:
        best = run.result["best"]["reward"]
        candidates = len(run.result.get("candidates", ()))
        said.append(
            (
                "note",
                f"The winner of {_candidates(candidates)} has {best:.4f} on the whole "
                f"validation split: {of_winner(run.config['evaluator']['name'])}. "
                "Retraining tells its accuracy.",
            )
        )
    if run.retrained is not None:
        text = verdict(run.retrained["winner"], run.retrained["random"])
        kind = "good" if text.endswith("better") else "note"
        said.append((kind, f"On the test set, in %, {text}."))
    return said


def _candidates(n: int) -> str:
    return "1 candidate" if n == 1 else f"{n:,} candidates"


def _next(run: Run) -> list[tuple[str, str]]:
    """What to run next."""
    workdir = f"--workdir={run.workdir}"
    if run.result is None:
        searches = [line for line in run.commands if "launch.search" in line]
        begin = command_line("-m", "launch.search", "--config=FILE", workdir)
        line = searches[-1] if searches else begin
        return [("next", f"To continue: {line}")]
    if run.retrained is None:
        line = command_line("-m", "launch.retrain", workdir)
        return [("next", f"To retrain the winner beside random architectures: {line}")]
    return []


def facts(run: Run) -> dict[str, str]:
    """Space, seed, versions, and the time of each phase, in words."""
    config = run.config
    found = {
        "space": f"{config['space']['name']}: {space_summary(run.space.spec)}",
        "strategy": config["strategy"]["name"],
        "evaluator": config["evaluator"]["name"],
        "data": str(config["data"].get("name")),
        "seed": str(config["train"]["seed"]),
        "trials": f"{len(run.trials.reward):,}",
    }
    if run.result is not None:
        known = run.result.get("diagnostics", {})
        for name in ("device", "jax", "commit"):
            if known.get(name):
                found[name] = str(known[name])
    return found | times(run)


def times(run: Run) -> dict[str, str]:
    """Seconds by phase, as the workdir tells them."""
    calls = sum(r.get("seconds") or 0.0 for r in run.rounds)
    found = {"time in rounds": duration(calls)} if run.rounds else {}
    if run.result is not None:
        budget = run.result["budget"]
        compiled = run.result.get("diagnostics", {}).get("compile_seconds", 0.0)
        if "seconds" in budget:
            rest = max(0.0, budget["seconds"] - calls - compiled)
            found |= {
                "time of the search": duration(budget["seconds"]),
                "its compilation": duration(compiled),
                "its final choice, checkpoints": duration(rest),
            }
    if run.retrained is not None:
        rows = [run.retrained["winner"], *run.retrained["random"]]
        for name, key in (("retraining", "seconds"), ("compiling", "compile_seconds")):
            seconds = sum(row.get(key, 0.0) for row in rows)
            found[f"{name}, {len(rows)} networks"] = duration(seconds)
    return found
