"""The search loop driven from the host, for what cannot be compiled as a whole.

Graphs have no fixed shape, and children that inherit weights are compiled one by one.
The functions are those of the compiled loop, and so is the state: every random draw
comes from its key and the number of the tick, so that it too goes on bit for bit.

Shapes: n samples a policy step, T decisions, K ticks of a call.
"""

import itertools

import jax
import numpy as np

from controller.graph_spec import stack, trim
from controller.loop import (
    Log,
    Loop,
    Schedule,
    SearchState,
    begin,
    check_child_steps,
    policy_keys,
)
from controller.spec import Spec
from controller.types import Evaluator, Strategy, Trial


def make_host_loop(
    spec: Spec,
    strategy: Strategy,
    evaluator: Evaluator,
    schedule: Schedule,
    *,
    max_ticks: int = 256,
    history: int = 64,
) -> Loop:
    """Joins a strategy and an evaluator into a search that the host drives.

    Args:
      spec: of the space.
      strategy: proposes and learns.
      evaluator: trains and scores; trials that are not valid may have reasons.
      schedule: how many policy steps a round has.
      max_ticks: most ticks of one call.
      history: how many of the best scored architectures the state keeps.

    Returns:
      the Loop; `run` may take a trial's time to return, and donates nothing.

    Raises:
      ValueError: if the schedule has child steps.
    """
    check_child_steps(schedule, evaluator)
    data = evaluator.data
    propose, update = strategy.propose, strategy.update
    if strategy.traceable:
        propose, update = jax.jit(propose, static_argnums=2), jax.jit(update)

    def tick(state):
        keys = policy_keys(state.key, state.step)
        proposal, policy = propose(keys.propose, state.strategy, schedule.samples)
        new, trial = evaluator.evaluate(keys.evaluate, state.evaluator, data, proposal)
        policy, metrics = update(keys.update, policy, trial._replace(reason=None))
        if strategy.alive is not None and evaluator.keep is not None:
            new = evaluator.keep(new, strategy.alive(policy))
        state = _remember(state.replace(strategy=policy, evaluator=new), trial)
        return state, metrics, trial

    def run(state, ticks):
        rounds, rows = [], []
        while len(rows) < min(int(ticks), max_ticks) and not state.failed:
            rounds.append(int(state.round))
            state, *row = tick(state)
            rows.append(row)
            last = state.tick + 1 >= schedule.phase(rounds[-1]).policy_steps
            state = state.replace(
                step=state.step + 1,
                round=state.round + last,
                tick=np.int32(0) if last else state.tick + 1,
            )
        return state, _log(rounds, rows)

    return Loop(
        lambda key: begin(spec, strategy, evaluator, history, key, data),
        run,
        lambda state, decisions: evaluator.score(state.evaluator, data, decisions),
        None,
        max_ticks,
    )


def _remember(state: SearchState, trial: Trial) -> SearchState:
    """Keeps the best distinct architectures; marks a valid reward that is not finite.

    Distinct means that they differ but for what fills them up.
    """
    rows, rewards = list(np.asarray(state.top_decisions)), state.top_reward.tolist()
    decisions, reward = np.asarray(trial.proposal.decisions), np.asarray(trial.reward)
    valid = np.asarray(trial.valid)
    for new, value in zip(decisions[valid], reward[valid].tolist(), strict=True):
        if not np.isfinite(value):
            return state.replace(failed=np.array(True), failed_decisions=new)
        same = (
            np.isfinite(r) and trim(row) == trim(new) for row, r in zip(rows, rewards)
        )
        slot = next(itertools.compress(itertools.count(), same), None)
        slot = int(np.argmin(rewards)) if slot is None else slot
        if value > rewards[slot]:
            rows[slot], rewards[slot] = new, value
    return state.replace(
        top_decisions=stack(rows), top_reward=np.array(rewards, np.float32)
    )


def _log(rounds, rows) -> Log:
    """The log of a call; of graphs, T is the length of the longest."""
    metrics, trials = zip(*rows, strict=True)
    proposals = [trial.proposal for trial in trials]

    def gathered(items):
        return None if items[0] is None else np.stack(items)

    decisions = stack(d for p in proposals for d in np.asarray(p.decisions))
    return Log(
        count=np.int32(len(rows)),
        round=np.array(rounds, np.int32),
        learn=np.ones(len(rows), bool),
        child={},
        policy={name: np.stack([m[name] for m in metrics]) for name in metrics[0]},
        decisions=decisions.reshape(len(rows), -1, decisions.shape[-1]),
        reward=np.stack([t.reward for t in trials]),
        valid=np.stack([t.valid for t in trials]),
        log_prob=np.stack([p.log_prob for p in proposals]),
        parent=gathered([p.parent for p in proposals]),
        cost=gathered([t.cost for t in trials]),
        reason=gathered([t.reason for t in trials]),
    )
