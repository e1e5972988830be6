"""The search loop: schedules of rounds, run in compiled calls.

A round is ``child_steps`` training steps of the evaluator, then ``policy_steps`` times
(propose, evaluate, update), or both in turn.  Either one is a tick.  A call runs any
number of ticks, within or across rounds, and its size does not change the result: every
random draw comes from the state's key and the number of the tick.

Shapes: n samples a policy step, T decisions, C objectives beside the reward, K ticks
that a call's log has room for.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from controller.spec import DecisionSpec
from controller.state import Log, SearchState, begin, policy_keys
from controller.types import (
    Evaluator,
    Key,
    Proposal,
    Strategy,
    check_gradients,
    no_improvement,
)


class Phase(NamedTuple):
    """Some rounds of one kind.

    Attributes:
      rounds: how many; the last phase of a schedule goes on as long as it is asked to.
      child_steps: training steps of the evaluator in a round.
      policy_steps: policy updates in a round.
      uniform: share of the child steps that sample uniformly and not by the policy.
      alternate: whether the policy updates are spread evenly among the child steps,
        beginning with one, instead of following them.
    """

    rounds: int
    child_steps: int
    policy_steps: int
    uniform: float = 0.0
    alternate: bool = False

    @property
    def ticks(self) -> int:
        """Ticks of a round."""
        return self.child_steps + self.policy_steps

    def learns(self, tick: int) -> bool:
        """Whether a tick of a round is a policy update."""
        if self.alternate:
            return _learns_in_turn(self.child_steps, self.policy_steps, tick)
        return tick >= self.child_steps


class Schedule(NamedTuple):
    """Phases, and the number of architectures that a policy step scores."""

    phases: tuple[Phase, ...]
    samples: int

    @property
    def rounds(self) -> int:
        """Rounds of all phases."""
        return sum(phase.rounds for phase in self.phases)

    def phase(self, round: int) -> Phase:
        """The phase that a round belongs to."""
        ends = np.cumsum([phase.rounds for phase in self.phases])
        index = int(np.searchsorted(ends, round, side="right"))
        return self.phases[min(index, len(self.phases) - 1)]


def schedule(
    *,
    rounds: int,
    child_steps: int,
    policy_steps: int,
    samples: int = 1,
    warmup_rounds: int = 0,
    uniform: float = 0.0,
    alternate: bool = False,
) -> Schedule:
    """A warm-up on uniform samples, then rounds in which the policy learns.

    Args:
      rounds: all of them, the warm-up included.
      child_steps: training steps of shared weights in a round.
      policy_steps: policy updates in a round after the warm-up.
      samples: architectures scored for one policy update.
      warmup_rounds: rounds that only train weights, on uniform samples.
      uniform: share of the child steps after the warm-up that still sample uniformly.
      alternate: whether policy updates are spread evenly among the child steps of their
        round, beginning with one, as in DARTS; else they follow them, as in ENAS.

    Raises:
      ValueError: on a number out of its range.
    """
    for name, value, low in (
        ("rounds", rounds, 1),
        ("child_steps", child_steps, 0),
        ("policy_steps", policy_steps, 0),
        ("samples", samples, 1),
        ("warmup_rounds", warmup_rounds, 0),
    ):
        if value < low:
            raise ValueError(f"schedule.{name} is {value}; it must be {low} or more")
    if child_steps + policy_steps == 0:
        raise ValueError(
            "schedule: child_steps and policy_steps are both 0; one must be 1 or more"
        )
    if warmup_rounds and not child_steps:
        raise ValueError("schedule.warmup_rounds needs child_steps of 1 or more")
    if warmup_rounds >= rounds:
        raise ValueError(
            f"schedule.warmup_rounds is {warmup_rounds}; it must be below "
            f"rounds={rounds}"
        )
    if not 0 <= uniform <= 1:
        raise ValueError(f"schedule.uniform is {uniform}; it must lie in [0, 1]")
    search = Phase(
        rounds - warmup_rounds, child_steps, policy_steps, uniform, alternate
    )
    warmup = Phase(warmup_rounds, child_steps, 0, 1.0)
    return Schedule((warmup, search) if warmup_rounds else (search,), samples)


class Loop(NamedTuple):
    """A search that runs by calls, compiled or driven from the host.

    Attributes:
      init: ``(key) -> SearchState``.
      run: ``(state, ticks) -> (SearchState, Log)``: at most `ticks` (and `max_ticks`)
        ticks; donates the state; stops at a loss or reward that is not finite.
      score: ``(state, decisions[T]) -> float32[]`` on the whole validation split.
      compiled_text: ``(state) -> str``: the program of `run`, as the compiler left it;
        None where it is none.
      announce: ``(state, [decisions[T]]) -> None``: those whose scores come next, where
        they can be measured side by side; else None.
      max_ticks: room in the log.
    """

    init: Callable[[Key], SearchState]
    run: Callable[[SearchState, int], tuple[SearchState, Log]]
    score: Callable[[SearchState, Any], jax.Array]
    compiled_text: Callable[[SearchState], str] | None
    max_ticks: int
    announce: Callable[[SearchState, Sequence[Any]], None] | None = None


def make_loop(
    spec: DecisionSpec,
    strategy: Strategy,
    evaluator: Evaluator,
    schedule: Schedule,
    *,
    max_ticks: int = 256,
    history: int = 64,
    sample: Callable[[Key, int], jax.Array] | None = None,
) -> Loop:
    """Joins a strategy and an evaluator into one compiled search.

    Args:
      spec: of the space.
      strategy: proposes and learns.
      evaluator: trains and scores.
      schedule: how many of which ticks a round has.
      max_ticks: most ticks of one call.
      history: how many of the best scored architectures the state keeps.
      sample: ``(key, n) -> int32[n, T]``, of child steps that sample uniformly; None
        for the spec's.

    Returns:
      the Loop; its functions are compiled at their first call.

    Raises:
      ValueError: if the schedule has child steps, and the evaluator nothing to train;
        if the strategy is relaxed, and the evaluator gives no gradients or the schedule
        samples.
    """
    check_child_steps(schedule, evaluator)
    check_gradients(strategy, evaluator)
    if strategy.relaxed:
        _check_relaxed(schedule)
    init = functools.partial(begin, spec, strategy, evaluator, history)
    sample = functools.partial(_uniform, spec) if sample is None else sample

    # Under `jit` each is traced once, for the shapes of the log and for the body.
    child_tick = jax.jit(
        functools.partial(_child_tick, sample, strategy, evaluator, schedule),
        inline=True,
    )
    policy_tick = jax.jit(
        functools.partial(_policy_tick, strategy, evaluator, schedule), inline=True
    )

    def run(state, data, ticks):
        shapes = (
            jax.eval_shape(child_tick, state, data)[1],
            jax.eval_shape(policy_tick, state, data)[1],
        )
        blank = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
        log = jax.tree.map(
            lambda r: jnp.zeros((max_ticks, *r.shape), r.dtype),
            _row(jnp.int32(0), jnp.array(False), *blank),
        )
        limit = jnp.minimum(ticks, max_ticks)

        def unfinished(carry):
            state, count, _ = carry
            return (count < limit) & ~state.failed

        def body(carry):
            state, count, log = carry
            phase = _phase(schedule, state.round)
            learn = jnp.where(
                phase.alternate,
                _learns_in_turn(phase.child_steps, phase.policy_steps, state.tick),
                state.tick >= phase.child_steps,
            )
            new, (child, policy) = jax.lax.cond(
                learn,
                lambda s: _second(policy_tick(s, data), blank[0]),
                lambda s: _first(child_tick(s, data), blank[1]),
                state,
            )
            row = _row(state.round, learn, child, policy)
            log = jax.tree.map(lambda buffer, r: buffer.at[count].set(r), log, row)
            last = state.tick + 1 >= phase.ticks
            new = new.replace(
                step=state.step + 1,
                round=state.round + last,
                tick=jnp.where(last, 0, state.tick + 1),
            )
            return new, count + 1, log

        start = (state, jnp.int32(0), log)
        state, count, log = jax.lax.while_loop(unfinished, body, start)
        return state, log._replace(count=count)

    compiled_init = jax.jit(init)
    compiled_run = jax.jit(run, donate_argnums=0)
    compiled_score = jax.jit(evaluator.score)
    return Loop(
        lambda key: compiled_init(key, evaluator.data),
        lambda state, ticks: compiled_run(state, evaluator.data, jnp.int32(ticks)),
        lambda state, decisions: compiled_score(
            state.evaluator, evaluator.data, jnp.asarray(decisions, jnp.int32)
        ),
        lambda state: (
            compiled_run.lower(state, evaluator.data, jnp.int32(1)).compile().as_text()
        ),
        max_ticks,
    )


def check_child_steps(schedule: Schedule, evaluator: Evaluator) -> None:
    """Raises `ValueError` on child steps where the evaluator has nothing to train."""
    child_steps = max(phase.child_steps for phase in schedule.phases)
    if child_steps and evaluator.improve is no_improvement:
        raise ValueError(
            f"schedule.child_steps is {child_steps}; this evaluator trains nothing "
            "between trials, so that it must be 0"
        )


def _check_relaxed(schedule):
    if schedule.samples != 1:
        raise ValueError(
            f"schedule.samples is {schedule.samples}; this strategy proposes one "
            "relaxed architecture, so that it must be 1"
        )
    if uniform := schedule.phases[-1].uniform:
        raise ValueError(
            f"schedule.uniform is {uniform}; this strategy's child steps train what it "
            "proposes, so that it must be 0"
        )


def _learns_in_turn(child_steps, policy_steps, tick):
    """Whether a tick is an update: of the first t, ceil(t policy_steps / ticks) are."""
    ticks = child_steps + policy_steps
    before, after = (-(-t * policy_steps // ticks) for t in (tick, tick + 1))
    return after > before


def _phase(schedule, round):
    """The phase of a traced round; its numbers are traced, `rounds` is None."""
    phases = schedule.phases
    # Where the last phase ends is not part of the program: it may be prolonged.
    ends = jnp.cumsum(jnp.array([phase.rounds for phase in phases[:-1]], jnp.int32))
    index = jnp.searchsorted(ends, round, side="right")
    columns = zip(*(phase[1:] for phase in phases), strict=True)
    return Phase(None, *(jnp.array(column)[index] for column in columns))


def _child_tick(sample, strategy, evaluator, schedule, state, data):
    """Trains weights once: the next state, and metrics."""
    key = jax.random.fold_in(state.key, state.step)
    uniform = _phase(schedule, state.round).uniform
    propose = functools.partial(_mixed, sample, strategy, state.strategy, uniform)
    new, metrics = evaluator.improve(key, state.evaluator, data, propose)
    decisions = metrics.pop("decisions")
    state = _mark_failure(state, ~jnp.isfinite(metrics["loss"]), decisions)
    return state.replace(evaluator=new), metrics


def _policy_tick(strategy, evaluator, schedule, state, data):
    """Scores samples and learns from them: the next state, metrics and the trial."""
    keys = policy_keys(state.key, state.step)
    proposal, policy = strategy.propose(keys.propose, state.strategy, schedule.samples)
    new, trial = evaluator.evaluate(keys.evaluate, state.evaluator, data, proposal)
    bad = trial.valid & ~jnp.isfinite(trial.reward)
    policy, metrics = strategy.update(keys.update, policy, trial)
    state = _mark_failure(state, bad.any(), proposal.decisions[jnp.argmax(bad)])
    state = _remember(state.replace(strategy=policy, evaluator=new), trial)
    return state, (metrics, trial)


def _first(out, blank):
    return out[0], (out[1], blank)


def _second(out, blank):
    return out[0], (blank, out[1])


def _row(round, learn, child, policy):
    """One tick's row of the log."""
    metrics, trial = policy
    return Log(
        count=(),
        round=round,
        learn=learn,
        child=child,
        policy=metrics,
        decisions=trial.proposal.decisions,
        reward=trial.reward,
        valid=trial.valid,
        log_prob=trial.proposal.log_prob,
        parent=trial.proposal.parent,
        cost=trial.cost,
        value=trial.value,
    )


def _uniform(spec, key, n):
    return jax.vmap(spec.sample)(jax.random.split(key, n))


def _mixed(sample, strategy, strategy_state, uniform, key, n):
    """Proposes by the policy, or uniformly with the given probability.

    A relaxed strategy proposes in warm-up too: it begins close to equal weights.
    """
    mix_key, policy_key, uniform_key = jax.random.split(key, 3)
    proposal, _ = strategy.propose(policy_key, strategy_state, n)
    if strategy.relaxed:
        return proposal
    drawn = sample(uniform_key, n)
    is_uniform = jax.random.bernoulli(mix_key, uniform, (n, 1))
    decisions = jnp.where(is_uniform, drawn, proposal.decisions)
    return Proposal(decisions, jnp.where(is_uniform[:, 0], 0.0, proposal.log_prob))


def _mark_failure(state, failed, decisions):
    return state.replace(
        failed=state.failed | failed,
        failed_decisions=jnp.where(failed, decisions, state.failed_decisions),
    )


def _remember(state, trial):
    """Keeps the best distinct architectures, each with its best reward."""

    def insert(top, item):
        rewards, table = top
        reward, valid, decisions = item
        same = jnp.all(table == decisions[None], axis=1) & jnp.isfinite(rewards)
        slot = jnp.where(same.any(), jnp.argmax(same), jnp.argmin(rewards))
        better = valid & jnp.isfinite(reward) & (reward > rewards[slot])
        rewards = rewards.at[slot].set(jnp.where(better, reward, rewards[slot]))
        table = table.at[slot].set(jnp.where(better, decisions, table[slot]))
        return (rewards, table), None

    top, _ = jax.lax.scan(
        insert,
        (state.top_reward, state.top_decisions),
        (trial.reward, trial.valid, trial.proposal.decisions),
    )
    return state.replace(top_reward=top[0], top_decisions=top[1])
