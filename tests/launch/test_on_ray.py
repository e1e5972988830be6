"""Trials on Ray: equal to those in this process, and workers that die.

The toy's trials are compiled in a moment; its weights are random draws of the trial's
key, so that a trial that ran with another key shows.
"""

import functools
import importlib.util
import os
import signal
import sys
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import nas_rl_digits
from controller.execution import in_process, runner
from controller.host_loop import make_host_loop
from controller.loop import schedule
from controller.spec import Decision, DecisionSpec
from controller.strategies.regularized_evolution import regularized_evolution
from controller.types import Evaluator, Execution, Trial, no_improvement
from launch.command import UserError
from launch.driver import search
from launch.on_ray import _Tasks, on_ray
from launch.store import find_trials

SPEC = DecisionSpec(tuple(Decision(f"d{t}", tuple("abcd")) for t in range(4)))
TICKS = 10

ABSENT = importlib.util.find_spec("ray") is None


needs_ray = pytest.mark.skipif(ABSENT, reason="needs the extra .[ray]")


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


class Heirs(NamedTuple):
    weights: dict
    trials: int


def heirs(workers=2):
    """A child has its parent's weight, its own decisions and noise; 3 leaves none."""

    def evaluate(key, state, data, proposal):
        rows = []
        for row, parent in zip(proposal.decisions, proposal.parent, strict=True):
            given = state.weights.get(str(parent), np.float32(0))
            noise = 0.1 * np.float32(jax.random.normal(key, ()))
            rows.append(given + noise + row.mean(dtype=np.float32))
            state = adopt(state, None if row[0] == 3 else rows[-1])
        valid = np.asarray(proposal.decisions)[:, 0] != 3
        reasons = np.where(valid, None, "the first is 3")
        reward = np.where(valid, np.stack(rows), 0)
        return state, Trial(proposal, reward, valid, reason=reasons)

    def adopt(state, weight):
        new = {} if weight is None else {str(state.trials): weight}
        return Heirs(state.weights | new, np.int32(state.trials + 1))

    def keep(state, trials):
        names = {str(trial) for trial in np.ravel(trials)}
        return Heirs({k: w for k, w in state.weights.items() if k in names}, state[1])

    return Evaluator(
        (),
        lambda key, data: Heirs({}, np.int32(0)),
        no_improvement,
        evaluate,
        lambda state, data, decisions: len(state.weights),
        execution=Execution("ray", workers),
        keep=keep,
        left=lambda state: state.weights.get(str(state.trials - 1)),
        adopt=adopt,
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
    """The toy; the first trial with a parent kills its worker the first times."""
    whole, first = runner(evaluator), folder / "first"

    def run(key, state, proposal):
        name = str(np.asarray(jax.random.key_data(key)))
        if int(proposal.parent[0]) >= 0 and not first.exists():
            first.write_text(name)
        if first.exists() and first.read_text() == name:
            died = len(list(folder.glob("died*")))
            if died < deaths:
                (folder / f"died{died}").touch()
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
@pytest.mark.parametrize("samples", [1, 3])
def test_weights_of_parents_reach_the_workers_and_come_back(ray, samples):
    evaluator = heirs(workers=3 if samples == 1 else 6)
    make = functools.partial(make_toy, evaluator)
    assert_heirs(evaluator, make, samples)


def assert_heirs(evaluator, make, samples=1):
    """It equals the search in this process, and goes on as if it had not stopped."""
    expected, rewards, _ = here(evaluator, samples)
    assert expected.pending and any(
        max(p.proposal.parent) >= 0 for p in expected.pending
    )
    loop = toy_loop(on_ray(make, evaluator), evaluator, samples)
    state, first, _ = finish(loop, ticks=4)
    assert state.evaluator.weights
    loop = toy_loop(on_ray(make, evaluator), evaluator, samples)
    state, rest, _ = finish(loop, state)
    assert_same_state(state, expected)
    assert first + rest == rewards
    loop.announce(state, [[0], [1, 2]])  # graphs differ in length
    assert loop.score(state, [1, 2]) == 0  # weights are no part of a score


@needs_ray
def test_a_parent_is_sent_again_where_its_childs_worker_is_killed(ray, tmp_path):
    evaluator = heirs()
    assert_heirs(evaluator, functools.partial(make_mortal, evaluator, tmp_path, 1))
    assert list(tmp_path.glob("died*"))


@needs_ray
def test_a_trial_whose_worker_is_killed_is_run_again(ray, tmp_path):
    evaluator = toy_evaluator()
    make = functools.partial(make_mortal, evaluator, tmp_path, 1)
    state, rewards, _ = finish(toy_loop(on_ray(make, evaluator), evaluator))
    assert list(tmp_path.glob("died*"))
    expected, others, _ = here(evaluator)
    assert_same_state(state, expected)
    assert rewards == others


@needs_ray
@pytest.mark.parametrize("evaluator", [toy_evaluator(), heirs()], ids=["toy", "heirs"])
def test_a_trial_that_kills_two_workers_is_not_valid(ray, tmp_path, evaluator):
    make = functools.partial(make_mortal, evaluator, tmp_path, 2)
    loop = toy_loop(on_ray(make, evaluator), evaluator)
    state, dead = loop.init(jax.random.key(3)), 0
    text = "its worker died, and so did the one that ran it again"
    while int(state.step) < TICKS:
        state, log = loop.run(state, TICKS)
        if int(log.count):
            died = log.reason[:, 0] == text
            np.testing.assert_array_equal(
                log.valid[:, 0], ~died & (log.decisions[:, 0, 0] != 3)
            )
            dead += died.sum()
    assert dead == 1 and len(list(tmp_path.glob("died*"))) == 2


@pytest.mark.slow  # begins a cluster of its own
@needs_ray
def test_a_trial_without_memory_is_run_again_once(ray, monkeypatch):
    """On a machine of which Ray takes any use of memory for too much."""
    ray.shutdown()
    monkeypatch.setenv("RAY_memory_usage_threshold", "0.0001")
    monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "50")
    begun = []
    remote = _Tasks.__dict__["_remote"].func

    def counted(self):
        begin = remote(self)
        return lambda *arguments: begun.append(arguments) or begin(*arguments)

    monkeypatch.setattr(_Tasks, "_remote", property(counted))
    evaluator = toy_evaluator(workers=1)
    make = functools.partial(make_toy, evaluator)
    loop = toy_loop(on_ray(make, evaluator), evaluator)
    state, log = loop.init(jax.random.key(3)), None
    while not int(state.step):
        state, log = loop.run(state, 1)
    ray.shutdown()
    text = "its worker ran out of memory, and so did the one that ran it again"
    assert log.reason.tolist() == [[text]] and not log.valid.any()
    assert len(begun) == 2


@needs_ray
def test_what_a_trial_raises_ends_the_search(ray):
    evaluator = toy_evaluator()

    def make():
        raise ZeroDivisionError("of the toy")

    loop = toy_loop(on_ray(make, evaluator), evaluator)
    with pytest.raises(ZeroDivisionError, match="of the toy"):
        finish(loop)


@needs_ray
@pytest.mark.parametrize("name", ["from_scratch", "inherited"])
def test_a_config_means_the_same_search_on_ray_and_here(ray, tmp_path, name):
    """Networks of one layer, of two heights."""

    heirs = name == "inherited"

    def trials(executor):
        config = nas_rl_digits.get_config("smoke")
        config.space.update(layers=1, heights=(1, 3), widths=(1,), filters=(2,))
        config.strategy = {"name": "local_search" if heirs else "random_search"}
        config.evaluator = {"name": name, "epochs": 1, "batch_size": 16}
        config.evaluator.update(executor=executor, workers=2)
        config.schedule.update(policy_steps=3, samples=1)
        config.train.rounds, config.derive.n = 2, 1
        search(config, tmp_path / executor)
        columns = [dict(trial) for trial in find_trials(tmp_path / executor)]
        return [c.pop("worker") for c in columns], columns

    (nobody, here), (workers, there) = trials("local"), trials("ray")
    assert here == there and len(here) == 6
    assert not any(nobody) and all(workers)
    assert all(trial["status"] == "valid" for trial in here)
    assert heirs == any(trial["parent"] is not None for trial in here)


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
