"""Trials on Ray: equal to those in this process, and workers that die.

The toy's trials are compiled in a moment; its weights are random draws of the trial's
key, so that a trial that ran with another key shows.
"""

import functools
import importlib.util
import os
import signal
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import genetic_digits
from controller.execution import in_process, runner
from controller.host_loop import make_host_loop
from controller.loop import schedule
from controller.spec import Decision, DecisionSpec
from controller.strategies.regularized_evolution import regularized_evolution
from controller.types import Evaluator, Execution, Trial, no_improvement
from launch.command import UserError
from launch.driver import search
from launch.on_ray import on_ray
from launch.store import find_trials

SPEC = DecisionSpec(tuple(Decision(f"d{t}", tuple("abcd")) for t in range(4)))
TICKS = 10

ABSENT = importlib.util.find_spec("ray") is None


def needs_ray(test):
    """Marks a test of workers, which take seconds to begin."""
    skip = pytest.mark.skipif(ABSENT, reason="needs the extra .[ray]")
    return pytest.mark.slow(skip(test))


def toy_evaluator(workers=2):
    def one(key, decisions):
        noise = jax.random.normal(key, (4,))
        reward = jnp.mean(decisions + 0.1 * noise)
        return jnp.where(decisions[0] == 3, 0, reward), decisions[0] != 3

    def evaluate(key, state, data, proposal):
        reward, valid = jax.vmap(one, (None, 0))(key, proposal.decisions)
        return state, Trial(proposal, reward, valid, reward[:, None] * data)

    def score(state, data, decisions):
        return one(state, decisions)[0]

    execution = Execution("ray", workers)
    return Evaluator(
        jnp.float32(2),
        lambda key, data: key,
        no_improvement,
        evaluate,
        score,
        execution=execution,
    )


def toy_loop(executor, evaluator, samples=1):
    strategy = regularized_evolution(SPEC, population=4, sample=2)
    plan = schedule(rounds=TICKS, child_steps=0, policy_steps=1, samples=samples)
    return make_host_loop(SPEC, strategy, evaluator, plan, executor, history=4)


def finish(loop, state=None, ticks=TICKS):
    """Runs to the end; the state, and the reward and worker of each trial."""
    state, rewards, workers = (
        loop.init(jax.random.key(3)) if state is None else state,
        [],
        [],
    )
    while int(state.step) < ticks:
        state, log = loop.run(state, ticks - int(state.step))
        rewards += log.reward.tolist()
        workers += log.worker.ravel().tolist()
    return state, rewards, workers


def here(evaluator, samples=1):
    """The same search in this process."""
    loop = toy_loop(in_process(runner(evaluator)), evaluator, samples)
    return finish(loop)


def assert_same_state(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
            x, y = jax.random.key_data(x), jax.random.key_data(y)
        np.testing.assert_array_equal(x, y)


@pytest.fixture(scope="module")
def ray():
    """Ray, with the functions of this file sent to workers by value."""
    import ray

    module = sys.modules[__name__]
    ray.cloudpickle.register_pickle_by_value(module)
    yield ray
    ray.cloudpickle.unregister_pickle_by_value(module)
    ray.shutdown()


def make_toy(evaluator):
    return runner(evaluator)


def make_mortal(evaluator, folder, deaths):
    """The toy, whose third kind of trial kills its worker the first times."""
    whole = runner(evaluator)

    def run(key, state, proposal):
        if int(proposal.decisions[0, 0]) == 1:
            name = "-".join(map(str, np.asarray(jax.random.key_data(key))))
            died = len([f for f in os.listdir(folder) if f.startswith(name)])
            if died < deaths:
                open(os.path.join(folder, f"{name}.{died}"), "w").close()
                os.kill(os.getpid(), signal.SIGKILL)
        return whole.run(key, state, proposal)

    return whole._replace(run=run)


@needs_ray
@pytest.mark.parametrize("samples", [1, 3])
def test_it_equals_the_search_in_this_process(ray, samples):
    evaluator = toy_evaluator()
    executor = on_ray(functools.partial(make_toy, evaluator), evaluator)
    loop = toy_loop(executor, evaluator, samples)
    before = signal.getsignal(signal.SIGTERM)
    loop.run(loop.init(jax.random.key(3)), 0)
    assert signal.getsignal(signal.SIGTERM) is before  # Ray has taken it for itself
    state, rewards, workers = finish(loop)
    expected, *rest = here(evaluator, samples)
    assert_same_state(state, expected)
    assert rewards == rest[0] and rest[1] == [None] * TICKS * samples
    names = {name.rpartition(":")[2] for name in workers}
    assert str(os.getpid()) not in names and 1 <= len(names) <= 2
    choice = np.array([[2, 1, 0, 1], [0, 0, 1, 2], [1, 1, 1, 1]], np.int32)
    loop.announce(state, choice[:2])
    for decisions in choice[[1, 0, 2]]:
        expected = evaluator.score(state.evaluator, evaluator.data, decisions)
        assert loop.score(state, decisions) == pytest.approx(float(expected))


@needs_ray
def test_a_search_goes_on_with_the_trials_that_were_under_way(ray):
    evaluator = toy_evaluator()
    make = functools.partial(make_toy, evaluator)
    state, first, _ = finish(toy_loop(on_ray(make, evaluator), evaluator), ticks=4)
    assert len(state.pending) == 1
    state, rest, _ = finish(toy_loop(on_ray(make, evaluator), evaluator), state)
    expected, rewards, _ = here(evaluator)
    assert_same_state(state, expected)
    assert first + rest == rewards


@needs_ray
def test_a_trial_whose_worker_is_killed_is_run_again(ray, tmp_path):
    evaluator = toy_evaluator()
    make = functools.partial(make_mortal, evaluator, str(tmp_path), 1)
    state, rewards, _ = finish(toy_loop(on_ray(make, evaluator), evaluator))
    assert list(tmp_path.iterdir())  # one died
    expected, others, _ = here(evaluator)
    assert_same_state(state, expected)
    assert rewards == others


@needs_ray
def test_a_trial_that_kills_two_workers_is_not_valid(ray, tmp_path):
    evaluator = toy_evaluator()
    make = functools.partial(make_mortal, evaluator, str(tmp_path), 2)
    loop = toy_loop(on_ray(make, evaluator), evaluator)
    state, reasons = loop.init(jax.random.key(3)), []
    while int(state.step) < TICKS:
        state, log = loop.run(state, TICKS)
        if not int(log.count):
            continue
        mortal = log.decisions[:, 0, 0] == 1
        ok = log.decisions[:, 0, 0] != 3
        np.testing.assert_array_equal(log.valid[:, 0], ok & ~mortal)
        reasons += log.reason[mortal, 0].tolist()
    text = "its worker died, and so did the one that ran it again"
    assert reasons and set(reasons) == {text}
    assert all(f.suffix in (".0", ".1") for f in tmp_path.iterdir())


@needs_ray
def test_what_a_trial_raises_ends_the_search(ray):
    evaluator = toy_evaluator()

    def make():
        raise ZeroDivisionError("of the toy")

    loop = toy_loop(on_ray(make, evaluator), evaluator)
    with pytest.raises(ZeroDivisionError, match="of the toy"):
        finish(loop)


@needs_ray
def test_a_config_means_the_same_search_on_ray_and_here(ray, tmp_path):
    def trials(executor):
        config = genetic_digits.get_config("smoke")
        config.schedule.samples = 1
        config.evaluator.update(executor=executor, workers=2)
        search(config, tmp_path / executor)
        columns = [dict(trial) for trial in find_trials(tmp_path / executor)]
        return [c.pop("worker") for c in columns], columns

    (nobody, here), (workers, there) = trials("local"), trials("ray")
    assert here == there and len(here) == 6
    assert not any(nobody) and all(workers)


@needs_ray
def test_a_cluster_that_does_not_answer_is_named(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    evaluator = toy_evaluator()
    loop = toy_loop(
        on_ray(functools.partial(make_toy, evaluator), evaluator), evaluator
    )
    state = loop.init(jax.random.key(0))
    import ray

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(
        UserError, match="cannot reach the Ray cluster at .*127.0.0.1:1"
    ):
        loop.run(state, 0)


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'cellwright\[ray\]'"):
        on_ray(None, toy_evaluator())
