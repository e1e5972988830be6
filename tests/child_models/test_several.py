"""Gradients of several architectures: means, and shares of the likelihood."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from child_models.per_device import Gradient
from child_models.several import several

LOSSES = jnp.array([0.5, 2.0, 0.7, 1e5])
PARAMS = {"w": jnp.array([1.0, -2.0])}


def gradient(keys, params, split, indices, decisions):
    """Of loss = LOSSES[decision]; a gradient that tells the architectures apart."""
    loss = LOSSES[decisions[0, 0]]
    grads = jax.tree.map(lambda w: w * (decisions[0, 0] + 1.0), params)
    return Gradient(grads, {"loss": loss}, decisions[0])


def run(temperature, rows):
    decisions = jnp.array(rows)[:, None]
    return several(gradient, temperature)(None, PARAMS, None, None, decisions)


def test_without_a_temperature_all_count_the_same():
    found = run(None, [0, 1, 2])
    np.testing.assert_allclose(found.grads["w"], 2 * PARAMS["w"], rtol=1e-6)
    assert found.metrics["loss"] == pytest.approx(3.2 / 3)


@pytest.mark.parametrize("rows", [[0, 1, 2], [2, 1, 0, 0]])
@pytest.mark.parametrize("temperature", [0.3, 2.0])
def test_weights_are_shares_of_the_likelihood(temperature, rows):
    losses = np.asarray(LOSSES)[rows]
    shares = np.exp(-losses / temperature) / np.exp(-losses / temperature).sum()
    factor = np.sum(shares * (np.array(rows) + 1))
    found = run(temperature, rows)
    np.testing.assert_allclose(found.grads["w"], factor * PARAMS["w"], rtol=1e-5)
    np.testing.assert_allclose(found.metrics["loss"], shares @ losses, rtol=1e-5)


def test_a_loss_of_any_size_leaves_the_others():
    np.testing.assert_allclose(run(0.01, [3, 0]).grads["w"], PARAMS["w"], rtol=1e-6)
    np.testing.assert_allclose(run(0.01, [3, 3]).grads["w"], 4 * PARAMS["w"], rtol=1e-6)


def test_a_loss_that_is_not_finite_is_told_with_its_architecture(monkeypatch):
    monkeypatch.setitem(globals(), "LOSSES", LOSSES.at[2].set(jnp.nan))
    found = run(1.0, [0, 2, 1])
    assert np.isnan(found.metrics["loss"]) and found.decisions.tolist() == [2]
