"""Evolution of decisions whose children inherit weights: parents, and going on."""

import jax
import numpy as np
import pytest

import launch.driver
from configs import nas_rl_digits
from launch import build
from launch.driver import search
from launch.store import find_trials


def small(**train):
    """One layer of two heights: two programs, which differ in one weight."""
    config = nas_rl_digits.get_config("smoke")
    config.space.update(layers=1, heights=(1, 3), widths=(1,), filters=(2,))
    config.strategy = {
        "name": "regularized_evolution",
        "population": 2,
        "sample": 1,
        "identity": 0.5,
    }
    config.evaluator = {
        "name": "inherited",
        "epochs": 1,
        "batch_size": 16,
        "reward_batch_size": 16,
        "quick_compile": True,
    }
    config.schedule.update(policy_steps=2, samples=1)
    config.derive.n = 1
    config.train.update({"rounds": 4, "checkpoint_seconds": 0.0} | train)
    return build.resolve(config)


@pytest.fixture(scope="module")
def built():
    return build.build(small())


def run(workdir, built, **train):
    """The trials of a search, and its final state."""
    states, original = [], launch.driver.derive

    def spy(built, state, **kwargs):
        states.append(state)
        return original(built, state, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launch.driver, "derive", spy)
        search(small(**train), workdir, built=built)
    return find_trials(workdir), states[0]


def test_children_inherit_and_a_restart_changes_nothing(built, tmp_path):
    trials, state = run(tmp_path / "whole", built)
    assert [trial["parent"] for trial in trials[:2]] == [None, None]
    assert all(0 <= trial["parent"] < i for i, trial in enumerate(trials) if i > 1)
    assert all(trial["status"] == "valid" for trial in trials)
    # The weights of those alive are kept, and no others.
    alive = {str(number) for number in np.asarray(state.strategy.number)}
    assert set(state.evaluator.weights) == alive == {"6", "7"}

    run(tmp_path / "cut", built, rounds=2)
    again, other = run(tmp_path / "cut", built)
    assert again == trials
    for a, b in zip(
        *map(jax.tree.leaves, (state.evaluator, other.evaluator)), strict=True
    ):
        if jax.dtypes.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = map(jax.random.key_data, (a, b))
        np.testing.assert_array_equal(a, b)
