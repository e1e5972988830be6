"""The loop on a toy evaluator: order of ticks, call sizes, failures, history."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from controller.loop import Phase, make_loop, schedule
from controller.spec import Decision, DecisionSpec
from controller.strategies.differentiable.darts import darts
from controller.strategies.random_search import random_search
from controller.types import Evaluator, Trial

SPEC = DecisionSpec(tuple(Decision(f"d{t}", ("a", "b", "c")) for t in range(3)))
TARGET = jnp.array([2, 0, 1])


def toy_evaluator(fail_at=10**6):
    """Reward: share of decisions on target; its state counts the child steps."""

    def improve(key, state, data, propose):
        decisions = propose(key, 1).decisions[0]
        loss = jnp.where(state == fail_at, jnp.nan, state.astype(jnp.float32))
        return state + 1, {"loss": loss, "decisions": decisions}

    def evaluate(key, state, data, proposal):
        reward = jnp.mean(proposal.decisions == data[None], axis=1, dtype=jnp.float32)
        return state, Trial(proposal, reward, jnp.ones(len(reward), bool))

    def score(state, data, decisions):
        return jnp.mean(decisions == data, dtype=jnp.float32)

    return Evaluator(TARGET, lambda key, data: jnp.int32(0), improve, evaluate, score)


def relaxed_evaluator():
    """Gives the gradient of minus the weights on target."""

    def improve(key, state, data, propose):
        weights = propose(key, 1).relaxed["weights"]["op"]
        return state, {"loss": weights[0, 2], "decisions": jnp.zeros(3, jnp.int32)}

    def evaluate(key, state, data, proposal):
        trial = toy_evaluator().evaluate(key, state, data, proposal)[1]
        gradient = {"op": -jax.nn.one_hot(data, 3)}
        return state, trial._replace(gradient=gradient)

    return toy_evaluator()._replace(improve=improve, evaluate=evaluate, gradients=True)


def toy_loop(fail_at=10**6, history=4, **kwargs):
    arguments = {"rounds": 3, "child_steps": 2, "policy_steps": 1, "samples": 5}
    plan = schedule(**(arguments | kwargs))
    return make_loop(
        SPEC,
        random_search(SPEC),
        toy_evaluator(fail_at),
        plan,
        max_ticks=16,
        history=history,
    )


@pytest.fixture(scope="module")
def loop():
    return toy_loop()


def run(loop, sizes, seed=0):
    """Runs calls of the given sizes; the last state, and the rows of all logs."""
    state, rows = loop.init(jax.random.key(seed)), []
    for size in sizes:
        state, log = loop.run(state, size)
        rows.append(_first(log, int(log.count)))
    return state, jax.tree.map(lambda *leaves: np.concatenate(leaves), *rows)


def _first(log, count):
    return jax.tree.map(lambda leaf: leaf[:count], log._replace(count=()))


def equal(a, b):
    def raw(x):
        return jax.random.key_data(x) if _is_key(x) else x

    jax.tree.map(lambda x, y: np.testing.assert_array_equal(raw(x), raw(y)), a, b)


def _is_key(x):
    return isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def test_a_round_trains_and_then_learns(loop):
    state, rows = run(loop, [9])
    np.testing.assert_array_equal(rows.learn, [False, False, True] * 3)
    np.testing.assert_array_equal(rows.round, np.repeat([0, 1, 2], 3))
    np.testing.assert_array_equal(rows.child["loss"][~rows.learn], np.arange(6))
    assert (int(state.round), int(state.tick), int(state.step)) == (3, 0, 9)


def test_the_size_of_a_call_does_not_change_the_result(loop):
    equal(run(loop, [9]), run(loop, [1, 4, 4]))


def test_other_seeds_give_other_samples(loop):
    first, second = (run(loop, [9], seed)[1].decisions for seed in (0, 1))
    assert not np.array_equal(first, second)


def test_a_call_is_no_longer_than_its_log(loop):
    assert int(loop.run(loop.init(jax.random.key(0)), 1000)[1].count) == 16


def test_history_keeps_the_best_distinct_architectures(loop):
    state, rows = run(loop, [16, 16])
    decisions = np.asarray(rows.decisions[rows.learn]).reshape(-1, 3)
    rewards = np.asarray(rows.reward[rows.learn]).reshape(-1)
    unique = {tuple(d): r for d, r in zip(decisions, rewards, strict=True)}
    best = sorted(unique.values())[-4:]
    kept = np.asarray(state.top_decisions)
    np.testing.assert_allclose(np.sort(state.top_reward), best)
    assert len({tuple(d) for d in kept}) == 4
    for decision, reward in zip(kept, np.asarray(state.top_reward), strict=True):
        assert unique[tuple(decision)] == reward


def test_warmup_has_no_policy_ticks():
    loop = toy_loop(rounds=2, warmup_rounds=1)
    _, rows = run(loop, [5])
    np.testing.assert_array_equal(rows.learn, [False] * 4 + [True])


def test_steps_alternate_where_asked():
    loop = toy_loop(child_steps=4, policy_steps=2, alternate=True, warmup_rounds=1)
    _, rows = run(loop, [16])
    turns = [True, False, False] * 4
    np.testing.assert_array_equal(rows.learn, [False] * 4 + turns)


@pytest.mark.parametrize(
    ("child", "policy", "turns"),
    [
        (2, 2, "pcpc"),
        (5, 1, "pccccc"),
        (1, 3, "pppc"),
        (3, 2, "pcpcc"),
        (0, 2, "pp"),
        (2, 0, "cc"),
    ],
)
def test_policy_steps_are_spread_evenly_and_begin(child, policy, turns):
    phase = Phase(1, child, policy, alternate=True)
    learns = [phase.learns(tick) for tick in range(phase.ticks)]
    assert "".join("cp"[learn] for learn in learns) == turns
    assert learns.count(True) == policy


def test_relaxed_weights_reach_both_steps_in_warm_up_too():
    plan = schedule(
        rounds=20, child_steps=1, policy_steps=1, warmup_rounds=2, alternate=True
    )
    strategy = darts(SPEC, learning_rate=0.3)
    loop = make_loop(SPEC, strategy, relaxed_evaluator(), plan, max_ticks=40)
    state, rows = run(loop, [38])
    seen = rows.child["loss"][~rows.learn]
    assert seen[0] == seen[1] == pytest.approx(1 / 3, abs=1e-2)  # nothing learnt yet
    assert seen[-1] > 0.9
    np.testing.assert_array_equal(rows.decisions[rows.learn][-1], TARGET[None])


@pytest.mark.parametrize(
    ("evaluator", "options", "text"),
    [
        (toy_evaluator, {}, "gradients of relaxed weights; this evaluator gives"),
        (relaxed_evaluator, {"samples": 2}, "samples is 2; this strategy proposes one"),
        (relaxed_evaluator, {"uniform": 0.5}, "uniform is 0.5; .* it must be 0"),
    ],
)
def test_relaxed_strategies_refuse(evaluator, options, text):
    plan = schedule(**({"rounds": 1, "child_steps": 1, "policy_steps": 1} | options))
    with pytest.raises(ValueError, match=text):
        make_loop(SPEC, darts(SPEC), evaluator(), plan)


def test_a_loss_that_is_not_finite_stops_the_call():
    state, rows = run(toy_loop(fail_at=2), [9])
    assert bool(state.failed)
    assert len(rows.round) == 4  # two child steps, one policy step, the failing one
    assert SPEC.validate(np.asarray(state.failed_decisions))


def test_score_sees_the_data(loop):
    state = loop.init(jax.random.key(0))
    assert float(loop.score(state, TARGET)) == 1.0


def test_schedule_beyond_its_end_goes_on_with_the_last_phase():
    plan = schedule(
        rounds=4, child_steps=2, policy_steps=3, warmup_rounds=1, uniform=0.2
    )
    assert plan.rounds == 4
    assert plan.phase(0) == Phase(1, 2, 0, 1.0)
    assert plan.phase(1) == plan.phase(99) == Phase(3, 2, 3, 0.2)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"rounds": 0}, "rounds is 0; it must be 1 or more"),
        ({"child_steps": 0, "policy_steps": 0}, "both 0"),
        ({"warmup_rounds": 3}, "below rounds=3"),
        ({"uniform": 1.5}, "must lie in"),
        ({"samples": 0}, "samples is 0"),
    ],
)
def test_schedule_refuses(change, text):
    arguments = {"rounds": 3, "child_steps": 1, "policy_steps": 1} | change
    with pytest.raises(ValueError, match=text):
        schedule(**arguments)
