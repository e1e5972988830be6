"""Whole searches under a budget."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from controller.budget import Budget, History, many_searches
from controller.spec import Decision, DecisionSpec
from controller.strategies import STRATEGIES
from controller.types import Evaluator, Trial

SPEC = DecisionSpec(tuple(Decision(f"d{i}", tuple("abc"), "op") for i in range(3)))


def evaluate(key, state, data, proposal):
    total = jnp.sum(proposal.decisions, axis=1)
    valid = total != 3
    cost = (1.0 + proposal.decisions[:, 0])[:, None]
    return state, Trial(proposal, 0.1 * total, valid, cost)


EVALUATOR = Evaluator((), lambda key, data: (), None, evaluate, None)
KEYS = jax.vmap(jax.random.key)(np.arange(5))


@pytest.fixture(scope="module")
def strategy():
    return STRATEGIES["regularized_evolution"](SPEC, population=4, sample=2)


def equal(a: History, b: History) -> None:
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_evaluations_are_counted(strategy):
    history = many_searches(strategy, EVALUATOR, chunk=8)(KEYS, Budget(evaluations=21))
    assert history.decisions.shape == (5, 21, 3) and history.paid.all()
    total = history.decisions.sum(axis=2)
    expected = np.where(total == 3, -np.inf, np.float32(0.1) * total)
    np.testing.assert_allclose(history.reward, expected, rtol=1e-6)


def test_what_would_exceed_the_seconds_is_not_paid(strategy):
    history = many_searches(strategy, EVALUATOR, chunk=8)(KEYS, Budget(seconds=20))
    longer = many_searches(strategy, EVALUATOR, chunk=8)(KEYS, Budget(seconds=30))
    assert np.all(history.cost.sum(axis=1) <= 20)
    for cost, paid in zip(longer.cost, history.paid, strict=True):
        n = paid.sum()
        assert paid[:n].all()
        assert cost[: n + 1].sum() > 20


def test_the_size_of_a_call_and_the_other_seeds_do_not_matter(strategy):
    budget = Budget(evaluations=16)
    history = many_searches(strategy, EVALUATOR, chunk=8)(KEYS, budget)
    equal(history, many_searches(strategy, EVALUATOR, chunk=5, slots=2)(KEYS, budget))
    alone = many_searches(strategy, EVALUATOR, chunk=16)(KEYS[3:4], budget)
    equal(alone, jax.tree.map(lambda x: x[3:4], history))


@pytest.mark.parametrize(
    "budget", [Budget(evaluations=6), Budget(seconds=9)], ids=["number", "seconds"]
)
def test_a_strategy_on_the_host_searches_the_same(strategy, budget):
    """One that cannot be traced runs seed by seed."""
    host = strategy._replace(
        traceable=False,
        propose=jax.jit(strategy.propose, static_argnums=2),
        update=jax.jit(strategy.update),
    )
    compiled = many_searches(strategy, EVALUATOR, chunk=8)(KEYS[:2], budget)
    driven = many_searches(host, EVALUATOR)(KEYS[:2], budget)
    equal(driven, compiled)


def test_the_incumbent_is_the_first_of_the_best_paid():
    reward = np.array([[-np.inf, 0.2, 0.1, 0.2, -np.inf], [0.3, 0.1, 0.4, 0.5, 0.2]])
    paid = np.array([[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]], bool)
    history = History(np.zeros((2, 5, 1)), reward, np.ones((2, 5)), paid)
    expected = [[-1, 1, 1, 1, 1], [0, 0, 2, 3, 3]]
    np.testing.assert_array_equal(history.incumbent(), expected)


@pytest.mark.parametrize(
    "budget, message",
    [
        (Budget(), "give one of them"),
        (Budget(10, 10), "give one of them"),
        (Budget(evaluations=0), "evaluations is 0; it must be 1 or more"),
        (Budget(seconds=float("inf")), "seconds is infinite"),
        (Budget(seconds=2), "seconds is 2; one evaluation costs up to 3 sec"),
    ],
)
def test_a_budget_pays_for_an_evaluation_at_least(budget, message):
    with pytest.raises(ValueError, match=message):
        budget.check(3.0)
