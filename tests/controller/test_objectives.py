"""Objectives beside hand-computed values, and redraws that keep within a limit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from controller.execution import Executor, Outcome
from controller.objectives import (
    Costs,
    Objective,
    judged_evaluator,
    judged_executor,
    limited,
)
from controller.spec import Decision, DecisionSpec
from controller.strategies.differentiable.darts import darts
from controller.strategies.genetic import genetic
from controller.strategies.progressive import progressive
from controller.strategies.random_search import random_search
from controller.strategies.regularized_evolution import regularized_evolution
from controller.types import Evaluator, Proposal, Trial, no_improvement

SPEC = DecisionSpec(tuple(Decision(f"op{t}", ("a", "b", "c")) for t in range(4)))
LIMITED = {"cost": "macs", "limit": 3.0}

# An architecture costs the sum of its decisions, 0 to 8.
COSTS = Costs(
    count=lambda d: float(sum(d)),
    traced=lambda d: jnp.sum(d, axis=-1).astype(jnp.float32),
    within=lambda d, limit: jnp.sum(d, axis=-1) <= limit,
    expected=lambda w: jnp.sum(w["op"] * jnp.arange(3.0)[None]),
)
ON_HOST = Costs(COSTS.count)


# ---- formulas -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "options, reward",
    [
        ({"name": "reward"}, [0.8, 0.8, 0.8]),
        # 0.8 * (1/2)^-0.07, 0.8, 0.8 * 2^-0.07
        ({"name": "weighted_product", "target": 10}, [0.839778, 0.8, 0.762106]),
        ({"name": "weighted_product", "target": 10, "form": "hard"}, [0.8, 0.8, 0.4]),
        (
            {"name": "weighted_product", "target": 10, "form": "hard", "weight": -2},
            [0.8, 0.8, 0.2],
        ),
        ({"name": "absolute", "target": 10, "weight": -0.1}, [0.75, 0.8, 0.7]),
        ({"name": "expected_cost", "target": 10, "weight": 0.1}, [0.75, 0.7, 0.6]),
    ],
)
def test_rewards_are_those_of_the_papers(options, reward):
    objective = Objective(cost="macs", **options)
    found = objective.reward(np.float32([0.8] * 3), np.float32([5, 10, 20]))
    np.testing.assert_allclose(found, reward, rtol=1e-5)


@pytest.mark.parametrize(
    "options, penalty",
    [
        ({"name": "weighted_product", "weight": -0.5}, 0.5 * np.log(2)),
        ({"name": "absolute", "weight": -0.1}, 0.1),
        ({"name": "expected_cost", "weight": 0.1}, 0.2),
    ],
)
def test_penalties_of_the_loss(options, penalty):
    objective = Objective(cost="macs", target=10, **options)
    assert float(objective.penalty(jnp.float32(20))) == pytest.approx(penalty)


def test_a_hard_product_leaves_the_loss_alone_below_the_target():
    objective = Objective(
        name="weighted_product", cost="macs", target=10, form="hard", weight=-1
    )
    assert float(jax.grad(objective.penalty)(5.0)) == 0
    assert float(jax.grad(objective.penalty)(20.0)) == pytest.approx(1 / 20)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"name": "product"}, "name is 'product'; known: reward, weighted_product"),
        ({"cost": "flops"}, "cost is 'flops'; known: params, macs, latency"),
        ({"form": "firm"}, "form is 'firm'; known: soft, hard"),
        ({"name": "absolute", "cost": "macs"}, "target is missing; absolute needs one"),
        ({"cost": "macs", "limit": -1.0}, "limit is -1.0; it must be positive"),
        ({"limit": 1.0}, "cost is missing; it must be one of params, macs, latency"),
        ({"redraws": -1}, "redraws is -1; it must be 0 or more"),
        (
            {"name": "absolute", "cost": "macs", "target": 1.0},
            "weight is missing; absolute needs one",
        ),
        (
            {
                "name": "weighted_product",
                "cost": "macs",
                "target": 1.0,
                "weight": 0.07,
            },
            "weight is 0.07; it must be 0 or less",
        ),
        (
            {"name": "expected_cost", "cost": "macs", "target": 1.0, "weight": -1.0},
            "weight is -1.0; it must be 0 or more",
        ),
        ({"cost": "latency"}, "cost is 'latency' and table None; a table belongs to"),
        ({"cost": "macs", "table": "t"}, "cost is 'macs' and table 't'; a table"),
    ],
)
def test_mistakes_are_told(options, message):
    with pytest.raises(ValueError) as error:
        Objective(**options)
    assert str(error.value).startswith(message)


# ---- trials -------------------------------------------------------------------------


def evaluator(gradient=None):
    """Rewards 0.5, except where the first decision is 2, which is not valid."""

    def evaluate(key, state, data, proposal):
        valid = proposal.decisions[:, 0] < 2
        return state, Trial(proposal, jnp.where(valid, 0.5, 0), valid, None, gradient)

    return Evaluator((), lambda key, data: (), no_improvement, evaluate, None)


ROWS = np.int32([[0, 0, 1, 1], [1, 2, 2, 1], [2, 0, 0, 0]])  # of costs 2, 6, 2


def test_a_trial_has_the_objective_the_plain_reward_and_the_cost():
    objective = Objective(name="expected_cost", target=2, weight=0.1, **LIMITED)
    judged = judged_evaluator(evaluator(), objective, COSTS)
    proposal = Proposal(jnp.asarray(ROWS), jnp.zeros(3))
    _, trial = jax.jit(lambda p: judged.evaluate(None, (), (), p))(proposal)
    np.testing.assert_allclose(trial.reward, [0.4, 0, 0])
    np.testing.assert_array_equal(trial.valid, [True, False, False])
    np.testing.assert_array_equal(trial.cost, [[2], [6], [2]])
    np.testing.assert_array_equal(trial.value, np.float32([0.5, np.nan, np.nan]))
    assert "no draw was within the limit" in judged.invalid


def test_trials_of_the_host_are_judged_alike_with_a_reason():
    objective = Objective(name="expected_cost", target=2, weight=0.1, **LIMITED)
    plain = evaluator()

    def collect(state, ticket):
        proposal = Proposal(jnp.asarray(ROWS), jnp.zeros(3))
        trial = jax.device_get(plain.evaluate(None, (), (), proposal)[1])
        return state, Outcome(trial, ["", "", "diverged"], [None] * 3)

    executor = Executor(None, None, None, collect, None)
    _, (trial, reasons, _) = judged_executor(executor, objective, ON_HOST).collect(0, 0)
    np.testing.assert_allclose(trial.reward, [0.4, 0, 0])
    np.testing.assert_array_equal(trial.valid, [True, False, False])
    assert reasons == ["", "its cost 6 is above the limit", "diverged"]


@pytest.mark.parametrize(
    "options, slope",
    [
        ({"name": "expected_cost", "weight": 0.5}, 0.25),  # 0.5 / 2
        ({"name": "absolute", "weight": -0.5}, 0.25),
        ({"name": "weighted_product", "weight": -0.5}, 0.125),  # 0.5 / 4
    ],
)
def test_relaxed_weights_get_the_gradient_of_the_expected_cost(options, slope):
    weights = {"op": jnp.full((4, 3), 1 / 3)}  # of expected cost 4
    proposal = Proposal(
        jnp.zeros((1, 4), jnp.int32), jnp.zeros(1), {"weights": weights, "live": None}
    )
    objective = Objective(cost="macs", target=2, **options)
    given = {"op": jnp.ones((4, 3))}
    judged = judged_evaluator(evaluator(given), objective, COSTS)
    _, trial = judged.evaluate(None, (), (), proposal)
    expected = 1 + slope * np.arange(3)[None].repeat(4, 0)
    np.testing.assert_allclose(trial.gradient["op"], expected, rtol=1e-6)
    assert float(trial.reward[0]) == 0.5  # what is told, not what is learnt from


# ---- redraws ------------------------------------------------------------------------

OBJECTIVE = Objective(**LIMITED)


def told(strategy, state, proposal, key):
    """The state after valid trials of equal reward."""
    n = len(proposal.decisions)
    trial = Trial(proposal, jnp.ones(n), jnp.ones(n, bool))
    return strategy.update(key, state, trial)[0]


def search(strategy, count, n=4, traced=True):
    """``() -> int[count * n, T]``: what is proposed in some policy steps."""
    compiled = jax.jit if traced else lambda f, **_: f
    propose = compiled(strategy.propose, static_argnums=2)
    update = compiled(lambda s, p, k: told(strategy, s, p, k))

    def run():
        state, found = strategy.init(jax.random.key(0)), []
        for i in range(count):
            key, update_key = jax.random.split(jax.random.key(1 + i))
            proposal, state = propose(key, state, n)
            found.append(np.asarray(proposal.decisions))
            state = update(state, proposal, update_key)
        return np.concatenate(found)

    return run


STRATEGIES = {
    "random": lambda: random_search(SPEC),
    "evolution": lambda: regularized_evolution(SPEC, population=4, sample=2),
    "genetic": lambda: genetic(SPEC, population=6),
    "progressive": lambda: progressive(
        SPEC, beam=4, first=4, surrogate="linear", capacity=32
    ),
}


SLOW = pytest.param("progressive", marks=pytest.mark.slow)


@pytest.mark.parametrize("name", ["random", "evolution", "genetic", SLOW])
def test_all_that_is_drawn_is_within_the_limit_and_depends_on_the_key(name):
    strategy = limited(STRATEGIES[name](), OBJECTIVE, COSTS)
    assert strategy.traceable
    run = search(strategy, 5)
    found = run()
    assert found.sum(axis=1).max() <= 3
    np.testing.assert_array_equal(found, run())
    assert len({tuple(row) for row in found.tolist()}) > 2


@pytest.mark.parametrize(
    "name", ["random", pytest.param("genetic", marks=pytest.mark.slow)]
)
def test_where_only_the_host_can_count_it_draws_again(name):
    strategy = limited(STRATEGIES[name](), OBJECTIVE, ON_HOST)
    assert not strategy.traceable
    found = search(strategy, 3, n=2, traced=False)()
    assert found.sum(axis=1).max() <= 3


def test_a_generation_of_which_some_are_above_the_limit_comes_to_its_end():
    """Those that are never trained must not be waited for."""
    strategy = limited(genetic(SPEC, population=6), OBJECTIVE, COSTS)
    state, baselines = strategy.init(jax.random.key(0)), []
    propose = jax.jit(strategy.propose, static_argnums=2)
    update = jax.jit(lambda s, p, k: told(strategy, s, p, k))
    for i in range(6):
        proposal, state = propose(jax.random.key(i), state, 2)
        state = update(state, proposal, jax.random.key(i))
        baselines.append(float(state.baseline))
    assert 1.0 in baselines  # the mean reward of a generation that was bred from


def test_redraws_end():
    objective = Objective(cost="macs", limit=0.5, redraws=3)
    never = Costs(COSTS.count, COSTS.traced, lambda d, limit: jnp.zeros(len(d), bool))
    strategy = limited(random_search(SPEC), objective, never)
    proposal, _ = strategy.propose(jax.random.key(0), strategy.init(None), 2)
    assert proposal.decisions.shape == (2, 4)


def test_nothing_of_relaxed_weights_can_be_drawn_again():
    with pytest.raises(ValueError, match="limit is 3.*relaxed weights"):
        limited(darts(SPEC), OBJECTIVE, COSTS)
