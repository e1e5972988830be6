"""The loop that the host drives: order, lag, continuing, and any architecture."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from controller.execution import Runner, in_process, runner
from controller.graph_spec import stack, trim
from controller.host_loop import make_host_loop
from controller.loop import make_loop, schedule
from controller.spec import Decision, DecisionSpec
from controller.strategies.random_search import random_search
from controller.types import (
    Evaluator,
    Execution,
    Proposal,
    Strategy,
    Trial,
    execution,
    no_improvement,
)

SPEC = DecisionSpec(tuple(Decision(f"d{t}", tuple("abcdefghij")) for t in range(3)))
PLAN = {"rounds": 4, "child_steps": 0, "policy_steps": 3}


def counting():
    """Proposes the number of trials that it has seen; metrics tell it too."""

    def propose(key, state, n):
        return Proposal(jnp.full((n, 3), state % 10), jnp.zeros(n)), state

    def update(key, state, trial):
        new = state + jnp.sum(trial.valid)
        return new, {"seen": new.astype(jnp.float32)}

    def best(key, state, n):
        return jnp.zeros((n, 3), jnp.int32)

    return Strategy(lambda key: jnp.int32(0), propose, update, best)


def noisy():
    """Reward: the mean decision, and a little noise of the trial's key."""

    def evaluate(key, state, data, proposal):
        noise = 0.01 * jax.random.uniform(key)
        reward = jnp.mean(proposal.decisions * data, axis=1) + noise
        return state, Trial(proposal, reward, jnp.ones(len(reward), bool))

    def score(state, data, decisions):
        return jnp.mean(decisions * data)

    def init(key, data):
        return ()

    return Evaluator(jnp.float32(0.1), init, no_improvement, evaluate, score)


TRIALS = runner(noisy())  # compiled once


def build(strategy=None, executor=None, samples=1, workers=1, order="submission"):
    return make_host_loop(
        SPEC,
        random_search(SPEC) if strategy is None else strategy,
        noisy()._replace(execution=Execution("local", workers, order)),
        schedule(**PLAN, samples=samples),
        in_process(TRIALS) if executor is None else executor,
        history=4,
    )


def run(loop, sizes, state=None):
    """The state, and the columns of the logs, after calls of the given sizes."""
    state = loop.init(jax.random.key(0)) if state is None else state
    logs = []
    for size in sizes:
        state, log = loop.run(state, size)
        logs.append(log)
    names = ("round", "decisions", "reward", "valid", "log_prob")
    rows = {
        name: np.concatenate([getattr(log, name) for log in logs]) for name in names
    }
    seen = [log.policy.get("entropy", log.policy.get("seen", [])) for log in logs]
    return state, rows | {"metric": np.concatenate(seen)}


def assert_equal(a, b):
    def plain(x):
        is_key = jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
        return np.asarray(jax.random.key_data(x) if is_key else x)

    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(plain(x), plain(y))


@pytest.mark.parametrize("samples", [1, 4])
def test_without_a_lag_it_is_the_compiled_search(samples):
    state, rows = run(build(samples=samples, workers=samples), [12])
    plan = schedule(**PLAN, samples=samples)
    loop = make_loop(SPEC, random_search(SPEC), noisy(), plan, max_ticks=12, history=4)
    other, log = loop.run(loop.init(jax.random.key(0)), 12)
    for name in ("round", "decisions", "reward", "valid", "log_prob"):
        np.testing.assert_allclose(rows[name], getattr(log, name), rtol=1e-6)
    assert int(state.step) == 12 and int(state.round) == 4 and int(state.tick) == 0
    np.testing.assert_allclose(state.top_reward.sum(), other.top_reward.sum())


@pytest.mark.parametrize("workers, samples, lag", [(1, 1, 0), (3, 1, 2), (5, 2, 1)])
def test_a_proposal_knows_the_trials_before_those_under_way(workers, samples, lag):
    _, rows = run(build(counting(), workers=workers, samples=samples), [3, 1, 8])
    known = samples * np.maximum(np.arange(12) - lag, 0)
    np.testing.assert_array_equal(rows["decisions"][:, 0, 0], known % 10)
    np.testing.assert_array_equal(rows["metric"], samples * np.arange(1, 13))


def test_the_size_of_calls_and_a_restart_change_nothing():
    whole = run(build(workers=3), [12])
    cut = run(build(workers=3), [1, 4, 2, 5])
    assert_equal(whole, cut)
    half, first = run(build(workers=3), [5])
    rest, second = run(build(workers=3), [7], state=half)
    assert_equal(whole[0], rest)
    for name, column in whole[1].items():
        np.testing.assert_array_equal(
            column, np.concatenate([first[name], second[name]])
        )


class Slow:
    """An executor whose trials end in the order that a test says."""

    def __init__(self):
        self.here = in_process(TRIALS)
        self.submitted, self.done = [], set()

    def executor(self):
        def submit(key, state, proposal):
            self.submitted.append(len(self.submitted))
            return self.submitted[-1], self.here.submit(key, state, proposal)

        def wait(tickets, seconds):
            ended = [i for i, (number, _) in enumerate(tickets) if number in self.done]
            return ended[0] if ended else None

        def collect(state, ticket):
            return self.here.collect(state, ticket[1])

        return self.here._replace(submit=submit, wait=wait, collect=collect)


def test_a_call_returns_where_no_trial_ends_and_nothing_is_lost():
    whole = run(build(workers=3), [12])
    slow = Slow()
    loop = build(workers=3, executor=slow.executor())
    state, rows = run(loop, [12])
    assert len(rows["reward"]) == 0 and slow.submitted == [0, 1, 2]
    slow.done = {1, 2}  # not the first one: nothing can be committed
    state, rows = run(loop, [12], state)
    assert len(rows["reward"]) == 0 and slow.submitted == [0, 1, 2]
    slow.done = set(range(12))
    assert_equal(whole, run(loop, [12], state))
    assert slow.submitted == list(range(12))  # and none beyond the end


def test_by_completion_whatever_has_ended_is_committed():
    slow = Slow()
    loop = build(counting(), workers=3, order="completion", executor=slow.executor())
    slow.done = {1, 3}
    state, rows = run(loop, [12])
    assert len(rows["reward"]) == 2 and slow.submitted == [0, 1, 2, 3, 4]
    assert [int(item.number) for item in state.pending] == [0, 2]
    slow.done = set(range(12))
    state, _ = run(loop, [10], state)
    assert int(state.step) == 12 and len(slow.submitted) == 12


def test_a_child_that_fails_is_not_valid_and_the_search_goes_on():
    whole = noisy()

    def refuse(decisions):
        if decisions.sum() % 2:
            raise MemoryError("no room for this child")
        return np.float32(0)

    def evaluate(key, state, data, proposal):
        shape = jax.ShapeDtypeStruct((), jnp.float32)
        zero = jax.pure_callback(refuse, shape, proposal.decisions)
        state, trial = whole.evaluate(key, state, data, proposal)
        return state, trial._replace(reward=trial.reward + zero)

    trials = runner(whole._replace(evaluate=evaluate))
    loop = build(executor=in_process(trials))
    _, log = loop.run(loop.init(jax.random.key(0)), 12)
    odd = log.decisions.sum(axis=(1, 2)) % 2 == 1
    assert odd.any() and not odd.all()
    np.testing.assert_array_equal(log.valid[:, 0], ~odd)
    assert not log.reward[odd].any()
    for reason, is_odd in zip(log.reason[:, 0], odd, strict=True):
        assert (0 < len(reason) <= 200) if is_odd else reason is None


def test_architectures_may_be_of_any_length():
    """As those of graphs: -1 fills up, and does not make another architecture."""

    def propose(key, state, n):
        rows = stack([3] * (state + i) for i in range(n))
        return Proposal(rows, np.zeros(n, np.float32)), state + n

    def update(key, state, trial):
        return state, {"last": np.float32(trial.reward[-1])}

    def run_one(key, state, proposal):
        reward = np.array([len(trim(proposal.decisions[0]))], np.float32)
        return state, Trial(None, reward, np.ones(1, bool)), None

    strategy = Strategy(lambda key: 0, propose, update, None, traceable=False)
    trials = Runner(lambda *_: None, run_one, lambda state, d: 0.0)
    loop = build(strategy, in_process(trials), samples=2, workers=4)
    state, log = loop.run(loop.init(jax.random.key(0)), 12)
    assert log.decisions.shape == (12, 2, 23)
    assert trim(log.decisions[3, 1]) == (3,) * 7
    np.testing.assert_array_equal(log.reward[:, 0], 2 * np.arange(12))
    assert sorted(len(trim(row)) for row in state.top_decisions) == [20, 21, 22, 23]
    # The same ones, filled up otherwise, are no others.
    again, _ = loop.run(state.replace(strategy=20), 1)
    assert len({trim(row) for row in again.top_decisions}) == 4


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("cluster",), "executor is 'cluster'; known: auto, compiled, local, ray"),
        (("local", 0), "workers is 0; it must be 1 or more"),
        (("local", 2, "any"), "order is 'any'; known: submission, completion"),
        (("ray", 2, "submission", -1), "gpus is -1; it must be 0 or more"),
        (("local", 2, "submission", 1), "gpus is 1; that needs the executor 'ray'"),
        (("compiled", 2), "workers is 2 and order 'submission'; the executor 'compil"),
    ],
)
def test_executions_that_cannot_be_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        execution(*arguments)


def test_auto_is_local_but_where_several_processes_search(monkeypatch):
    assert execution().executor == execution("auto", 2).executor == "local"
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    assert execution("auto", 1).executor == "compiled"
    assert execution("auto", 2).executor == "local"
    assert execution("auto", 1, "completion").executor == "local"


def test_a_score_is_a_trial_of_another_key_where_the_evaluator_says_so():
    """One program serves both: what it holds is traced once."""
    traced = []

    def evaluate(key, state, data, proposal):
        traced.append(key)
        value = data * (proposal.decisions[:, 0] + jax.random.uniform(key))
        valid = proposal.decisions[:, 0] < 3
        return state, Trial(proposal, value, valid)

    evaluator = noisy()._replace(
        evaluate=evaluate, score_key=lambda _: jax.random.key(7)
    )
    trials = runner(evaluator)
    proposal = Proposal(jnp.array([[2, 0, 0]]), jnp.zeros(1), parent=jnp.array([-1]))
    trials.prepare((), proposal)
    _, trial, _ = trials.run(jax.random.key(7), (), proposal)
    assert trials.score((), np.array([2, 0, 0])) == trial.reward[0] > 0.2
    assert np.isnan(trials.score((), np.array([3, 0, 0])))
    assert len(traced) == 1
