"""A training on a toy: failures, signals, and a kill while it tests."""

import os
import signal

import jax
import jax.numpy as jnp
import pytest

from child_models.recipe import TrainState
from child_models.retraining import Retraining
from launch.command import Interrupted
from launch.signals import Signals
from launch.training import NotFinite, train


def toy_training(end=None):
    """A training of 9 steps without a network; its loss is not finite at step `end`."""

    def init(key, data):
        return TrainState(key, jnp.int32(0), jnp.array(False), (), (), (), ())

    def run(state, data, count):
        step = jnp.minimum(state.step + count, end or 9)
        metrics = {"loss": jnp.float32(1), "accuracy": jnp.float32(0)}
        return state.replace(step=step, failed=step == (end or -1)), metrics

    return Retraining({}, 9, 2, init, run, lambda variables, data: 0.5)


def train_toy(training, folder, signals):
    key, seconds = jax.random.key(0), 60.0
    return train(
        training,
        key,
        name="toy",
        folder=folder,
        checkpoint_seconds=seconds,
        signals=signals,
    )


def test_a_loss_that_is_not_finite_names_its_step(tmp_path):
    text = r"loss of step 7 \(epoch 4\) is not finite"
    with Signals() as signals, pytest.raises(NotFinite, match=text):
        train_toy(toy_training(end=7), tmp_path, signals)


def test_a_signal_is_heeded_before_anything_compiles(tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "jit", None)
    with Signals() as signals, pytest.raises(Interrupted):
        os.kill(os.getpid(), signal.SIGTERM)
        train_toy(toy_training(), tmp_path, signals)


def test_what_was_trained_survives_a_kill_while_testing(tmp_path):
    def killed(variables, data):
        raise KeyboardInterrupt

    def run(*_):
        raise AssertionError("it was trained again")

    training = toy_training()
    with Signals() as signals:
        with pytest.raises(KeyboardInterrupt):
            train_toy(training._replace(test=killed), tmp_path, signals)
        trained = train_toy(training._replace(run=run), tmp_path, signals)
    assert trained.test_metric == 0.5
