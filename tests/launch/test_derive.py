"""The final choice: distinct candidates from policy and history, the best one first."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from controller.spec import Decision, DecisionSpec
from launch.derive import candidates, derive

SPEC = DecisionSpec(tuple(Decision(f"op{t}", ("a", "b", "c")) for t in range(2)))


def state(history):
    """The end of a search with this history of (reward, decisions), padded."""
    rewards = [reward for reward, _ in history] + [-np.inf] * 2
    table = [decisions for _, decisions in history] + [(0, 0)] * 2
    return types.SimpleNamespace(
        key=jax.random.key(0),
        strategy=None,
        top_reward=jnp.array(rewards),
        top_decisions=jnp.array(table, jnp.int32),
    )


def strategy(rows):
    """A strategy whose best architectures are these rows, again and again."""
    return types.SimpleNamespace(
        best=lambda key, _, n: jnp.array([rows[i % len(rows)] for i in range(n)])
    )


HISTORY = [(0.1, (2, 2)), (0.9, (1, 1)), (0.5, (0, 1))]


def test_policy_and_history_take_turns():
    found = candidates(SPEC, strategy([(1, 0), (2, 0)]), state(HISTORY), 4)
    assert found == [
        ((1, 0), "policy"),
        ((1, 1), "history"),
        ((2, 0), "policy"),
        ((0, 1), "history"),
    ]


def test_what_both_propose_counts_once_and_history_fills_up():
    found = candidates(SPEC, strategy([(1, 1)]), state(HISTORY), 3)
    assert found == [((1, 1), "policy"), ((0, 1), "history"), ((2, 2), "history")]


def test_there_may_be_fewer_than_wanted():
    assert len(candidates(SPEC, strategy([(1, 1)]), state([]), 5)) == 1


@pytest.fixture
def search():
    """A search whose scores are 0, 1, ... by the first decision; NaN at 2."""

    def score(_, decisions):
        return jnp.where(decisions[0] == 2, jnp.nan, decisions[0])

    return types.SimpleNamespace(
        space=types.SimpleNamespace(spec=SPEC),
        strategy=strategy([(2, 0), (0, 0), (1, 0)]),
        costs=None,
        loop=types.SimpleNamespace(score=score),
        config=types.SimpleNamespace(derive=types.SimpleNamespace(n=3)),
    )


def test_the_best_comes_first_and_a_score_that_is_not_finite_last(search):
    scored = derive(search, state([]))
    assert [c["decisions"] for c in scored] == [[1, 0], [0, 0], [2, 0]]
    assert [c["reward"] for c in scored] == [1.0, 0.0, None]
    assert SPEC.decode(scored[0]["genotype"]) == (1, 0)


def test_a_stop_between_candidates_is_heeded(search):
    calls = []

    def between():
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        derive(search, state([]), between=between)
