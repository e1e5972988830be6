"""Where trials run that the host drives, see `controller.host_loop`.

Shapes: n architectures a proposal.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from controller.types import Evaluator, Key, Proposal, Trial

# What the machine refuses one child need not end the search.
FAILURES = (jax.errors.JaxRuntimeError, MemoryError)


class Outcome(NamedTuple):
    """What became of a proposal.

    Attributes:
      trial: its trial, on the host.
      reason: n texts, None where the trial is valid or no reason is known.
      worker: n names of who ran it; None for this process.
    """

    trial: Trial
    reason: Sequence[str | None]
    worker: Sequence[str | None]


class Executor(NamedTuple):
    """Runs trials, here or elsewhere.

    Attributes:
      start: ``(evaluator state, Proposal) -> None``: connects, or compiles for such
        proposals; without it the first trial does.
      submit: ``(key, evaluator state, Proposal) -> ticket``; does not wait.
      wait: ``(tickets, seconds) -> int | None``: which one of some tickets is finished;
        None where none is within the time.
      collect: ``(evaluator state, ticket) -> (evaluator state, Outcome)`` of a finished
        one.
      score: ``(evaluator state, decisions) -> float``, for the final choice; NaN where
        the child failed.
      announce: ``(evaluator state, [decisions]) -> None``: all whose scores are about
        to be asked for, so that they are measured side by side; None where that is of
        no use.
    """

    start: Callable[[Any, Proposal], None]
    submit: Callable[[Key, Any, Proposal], Any]
    wait: Callable[[Sequence[Any], float], int | None]
    collect: Callable[[Any, Any], tuple[Any, Outcome]]
    score: Callable[[Any, Any], float]
    announce: Callable[[Any, Sequence[Any]], None] | None = None


class Runner(NamedTuple):
    """The trials of single architectures.

    Attributes:
      prepare: ``(evaluator state, Proposal) -> None``: compiles for such proposals.
      run: ``(key, evaluator state, Proposal) -> (evaluator state, Trial, reason)``; the
        trial is on the host.  A child that fails is not valid, of a reason.
      score: ``(evaluator state, decisions) -> float``; NaN where the child failed.
      left: `Evaluator.left`.
    """

    prepare: Callable[[Any, Proposal], None]
    run: Callable[[Key, Any, Proposal], tuple[Any, Trial, str | None]]
    score: Callable[[Any, Any], float]
    left: Callable[[Any], Any] | None = None


def runner(evaluator: Evaluator) -> Runner:
    """Compiles an evaluator's functions for one architecture at a time.

    That is one program: a score is a trial of another key, wherever an evaluator says
    so by `Evaluator.score_key`.  One whose children inherit weights compiles each of
    them by itself.
    """
    data = evaluator.data
    if evaluator.keep is not None:
        return _by_itself(evaluator)

    @jax.jit
    def trial_of(key, state, data, decisions):
        proposal = Proposal(decisions, jnp.zeros(1))
        state, trial = evaluator.evaluate(key, state, data, proposal)
        return state, trial._replace(proposal=None)

    score_alone = jax.jit(evaluator.score)
    programs = {}

    def program(*arguments):
        if not programs:
            programs["run"] = trial_of.lower(*arguments).compile()
        return programs["run"]

    def prepare(state, proposal):
        program(jax.random.key(0), state, data, proposal.decisions[:1])

    def run(key, state, proposal):
        arguments = (key, state, data, proposal.decisions)
        try:
            state, trial = jax.block_until_ready(program(*arguments)(*arguments))
        except FAILURES as error:
            return state, nothing(jax.eval_shape(trial_of, *arguments)[1]), why(error)
        return state, jax.device_get(trial), None

    def score(state, decisions):
        if evaluator.score_key is None:
            try:
                return float(score_alone(state, data, decisions))
            except FAILURES:
                return math.nan
        decisions = np.asarray(decisions, np.int32)[None]
        _, trial, _ = run(evaluator.score_key(state), state, Proposal(decisions, None))
        return float(trial.reward[0]) if trial.valid[0] else math.nan

    return Runner(prepare, run, score)


def _by_itself(evaluator: Evaluator) -> Runner:
    """The trials of an evaluator that compiles them, and says why one failed."""
    data = evaluator.data

    def run(key, state, proposal):
        state, trial = evaluator.evaluate(key, state, data, proposal)
        return state, trial._replace(proposal=None, reason=None), trial.reason[0]

    return Runner(
        lambda state, proposal: None,
        run,
        lambda state, decisions: float(evaluator.score(state, data, decisions)),
        evaluator.left,
    )


def in_process(trials: Runner) -> Executor:
    """Runs trials in this process, one architecture after the other."""

    def submit(key, state, proposal):
        return key, proposal

    def wait(tickets, seconds):
        return 0

    def collect(state, ticket):
        key, proposal = ticket
        parts, reasons = [], []
        for row in rows_of(proposal):
            state, trial, reason = trials.run(key, state, row)
            parts.append(trial)
            reasons.append(reason)
        workers = [None] * len(parts)
        return state, Outcome(joined(proposal, parts), reasons, workers)

    return Executor(trials.prepare, submit, wait, collect, trials.score)


# ---- trials of single architectures -------------------------------------------------


def rows_of(proposal: Proposal) -> list[Proposal]:
    """The proposals of one architecture each that a proposal consists of."""
    n = len(proposal.decisions)
    return [jax.tree.map(lambda x, i=i: x[i : i + 1], proposal) for i in range(n)]


def joined(proposal: Proposal, trials: Sequence[Trial]) -> Trial:
    """The trial of a proposal out of those of `rows_of`, which hold no proposals."""
    whole = jax.tree.map(lambda *rows: np.concatenate(rows), *trials)
    return whole._replace(proposal=proposal)


def nothing(like: Trial) -> Trial:
    """A trial that is not valid, without its proposal.

    Args:
      like: its shapes and dtypes.
    """
    like = like._replace(proposal=None)
    return jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), like)


def why(error: BaseException) -> str:
    """An error as the reason of a trial: one line, 200 characters at most."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text[:200]
