"""The search loop driven from the host, for trials that run outside of it.

The functions of `controller.loop`, one tick at a time: propose, submit, commit a
trial, update.  A tick is a policy step of n samples.  With `ahead` policy steps under
way, the proposal of step t knows the trials of the steps before t - ahead.  Trials are
committed in the order of submission, so that a search is the same wherever and however
fast they ran; the proposals under way are part of the state, and are submitted again
where a search goes on.

Graphs of an unbounded space are vectors that -1 fills up to the longest one.

Shapes: n samples a policy step, T decisions, K ticks of a call, H architectures of the
history.
"""

import functools
from typing import Any, NamedTuple

import jax
import numpy as np

from controller.execution import Executor, Outcome
from controller.graph_spec import stack, trim
from controller.loop import Loop, Schedule, check_child_steps
from controller.spec import Spec
from controller.state import Log, SearchState, begin, policy_keys
from controller.types import Evaluator, Proposal, Strategy, Trial

PATIENCE_SECONDS = 1.0  # that a call waits for a trial before it returns


class Pending(NamedTuple):
    """A proposal without a trial."""

    number: Any  # int32[], of the tick that proposed it
    proposal: Proposal


def make_host_loop(
    spec: Spec,
    strategy: Strategy,
    evaluator: Evaluator,
    schedule: Schedule,
    executor: Executor,
    *,
    max_ticks: int = 256,
    history: int = 64,
) -> Loop:
    """Joins a strategy and an evaluator into a search whose trials an executor runs.

    Args:
      spec: of the space.
      strategy: proposes and learns; compiled where it is traceable.
      evaluator: whose trials the executor runs.  Its `execution` says how many may be
        under way at once (those of one policy step are in any case), and the order in
        which they are committed; by completion every worker is busy, and no search can
        be repeated.
      schedule: of policy steps only.
      executor: runs the trials.
      max_ticks: most ticks of one call.
      history: H.

    Returns:
      the Loop.  Its `run` returns early where no trial ends within a second.

    Raises:
      ValueError: on child steps.
    """
    check_child_steps(schedule, evaluator)
    n = schedule.samples
    ahead = max(1, evaluator.execution.workers // n) - 1
    any_order = evaluator.execution.order == "completion"
    last = sum(phase.rounds * phase.policy_steps for phase in schedule.phases)
    compiled = jax.jit if strategy.traceable else _as_it_is
    propose = compiled(strategy.propose, static_argnums=2)
    update = compiled(strategy.update)
    first = compiled(functools.partial(begin, spec, strategy, evaluator, history))
    tickets: dict[tuple[bytes, int], Any] = {}

    def init(key):
        state = first(key, evaluator.data)
        queue = []
        for number in range(ahead):
            queue, policy = extended(state.key, state.strategy, queue, number)
            state = state.replace(strategy=policy)
        return state.replace(pending=tuple(queue))

    def extended(key, policy, queue, number):
        """The queue with the proposal of one more tick."""
        proposal, policy = propose(policy_keys(key, number).propose, policy, n)
        return [*queue, Pending(np.int32(number), proposal)], policy

    def run(state, ticks):
        rows = []
        if not ticks:
            (item,), _ = extended(state.key, state.strategy, [], int(state.step))
            executor.start(state.evaluator, item.proposal)
        while len(rows) < min(ticks, max_ticks) and not state.failed:
            done = tick(state)
            if done is None:
                break
            state, row = done
            rows.append(row)
        return state, _log(rows, n)

    def tick(state):
        """The next state and a row of the log; None where no trial has ended."""
        step = int(state.step)
        queue, policy = extended(
            state.key, state.strategy, list(state.pending), step + ahead
        )
        i = finished(state, queue, max(last, step + 1))
        if i is None:
            return None
        item = queue.pop(i)
        ticket = tickets.pop(_name(state.key, item))
        new, outcome = executor.collect(state.evaluator, ticket)
        trial = outcome.trial
        update_key = policy_keys(state.key, item.number).update
        policy, metrics = update(update_key, policy, trial)
        row = (int(state.round), outcome, jax.device_get(metrics))
        state = _remember(_mark_failure(_advance(schedule, state), trial), trial)
        if strategy.alive is not None and evaluator.keep is not None:
            parents = [np.ravel(item.proposal.parent) for item in queue]
            new = evaluator.keep(
                new, np.concatenate([np.ravel(strategy.alive(policy)), *parents])
            )
        state = state.replace(strategy=policy, evaluator=new, pending=tuple(queue))
        return state, row

    def finished(state, queue, end):
        """Which of the queue to commit, None for none; submits what was not yet.

        What a search that ends would not commit is not submitted.
        """
        submitted = [item for item in queue if int(item.number) < end]
        for item in submitted:
            if _name(state.key, item) not in tickets:
                key = policy_keys(state.key, item.number).evaluate
                tickets[_name(state.key, item)] = executor.submit(
                    key, state.evaluator, item.proposal
                )
        candidates = submitted if any_order else submitted[:1]
        found = [tickets[_name(state.key, item)] for item in candidates]
        return executor.wait(found, PATIENCE_SECONDS)

    def score(state, decisions):
        return executor.score(state.evaluator, decisions)

    def announce(state, decisions):
        executor.announce(state.evaluator, decisions)

    together = None if executor.announce is None else announce
    return Loop(init, run, score, None, max_ticks, together)


def _as_it_is(function, **_):
    return function


def _name(key, item: Pending) -> tuple[bytes, int]:
    """Of a ticket: what its trial depends on, besides the evaluator."""
    return np.asarray(jax.random.key_data(key)).tobytes(), int(item.number)


def _advance(schedule: Schedule, state: SearchState) -> SearchState:
    """The position after one more tick."""
    round, tick = int(state.round), int(state.tick) + 1
    over = tick >= schedule.phase(round).policy_steps
    return state.replace(
        step=np.int32(state.step + 1),
        round=np.int32(round + over),
        tick=np.int32(0 if over else tick),
    )


def _mark_failure(state: SearchState, trial: Trial) -> SearchState:
    bad = trial.valid & ~np.isfinite(trial.reward)
    if not bad.any():
        return state
    decisions = np.asarray(trial.proposal.decisions)[np.argmax(bad)]
    return state.replace(failed=np.array(True), failed_decisions=decisions)


def _remember(state: SearchState, trial: Trial) -> SearchState:
    """`controller.loop`'s history, of architectures of any length."""
    rewards = np.array(state.top_reward)
    table = list(np.asarray(state.top_decisions))
    decisions = np.asarray(trial.proposal.decisions)
    good = trial.valid & np.isfinite(trial.reward)
    for row, reward, ok in zip(decisions, trial.reward, good, strict=True):
        equal = [trim(known) == trim(row) for known in table]
        same = np.array(equal) & np.isfinite(rewards)
        slot = np.argmax(same) if same.any() else np.argmin(rewards)
        if ok and reward > rewards[slot]:
            rewards[slot], table[slot] = reward, row
    return state.replace(top_reward=rewards, top_decisions=stack(table))


def _table(proposed, n: int) -> np.ndarray:
    """int32[K, n, T] of K times int32[n, T], of different T where they are graphs."""
    rows = stack(row for decisions in proposed for row in np.asarray(decisions))
    return rows.reshape(len(proposed), n, rows.shape[-1])


def _log(rows: list[tuple[int, Outcome, dict[str, Any]]], n: int) -> Log:
    """The log of a call, as NumPy arrays without spare rows."""
    outcomes = [outcome for _, outcome, _ in rows]
    trials = [outcome.trial for outcome in outcomes]

    def stacked(values):
        if not values:
            return np.zeros((0, n), np.float32)
        return None if values[0] is None else np.stack(values)

    def texts(values):
        return np.array(list(values), object).reshape(-1, n)

    names = rows[0][2] if rows else ()
    return Log(
        count=np.int32(len(rows)),
        round=np.array([round for round, _, _ in rows], np.int32),
        learn=np.ones(len(rows), bool),
        child={},
        policy={name: np.stack([row[2][name] for row in rows]) for name in names},
        decisions=_table([t.proposal.decisions for t in trials], n),
        reward=stacked([t.reward for t in trials]),
        valid=stacked([t.valid for t in trials]),
        log_prob=stacked([np.asarray(t.proposal.log_prob) for t in trials]),
        parent=stacked([t.proposal.parent for t in trials]),
        cost=stacked([t.cost for t in trials]),
        value=stacked([t.value for t in trials]),
        reason=texts(outcome.reason for outcome in outcomes),
        worker=texts(outcome.worker for outcome in outcomes),
    )
