"""Hypergradients where they can be worked out by hand."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from child_models.hypergradient import HYPERGRADIENTS, architecture_gradient

SECOND = tuple(kind for kind in HYPERGRADIENTS if kind != "first")
W, A = 0.3, -0.7


def quadratic_train(w, a):
    """L = (w - a)^2 / 2."""
    return jnp.sum((w - a) ** 2) / 2


def quadratic_validation(w, a):
    """V = (w - 1)^2 / 2, which does not know the architecture."""
    return jnp.sum((w - 1) ** 2) / 2, w


def test_first_order_sees_no_step_ahead():
    seen, gradient = architecture_gradient(
        "first", quadratic_train, quadratic_validation, W, A, 0.5, 0.0
    )
    assert seen == W and gradient == 0


@pytest.mark.parametrize("drift", [0.0, 0.4])
@pytest.mark.parametrize("rate", [0.025, 0.5])
@pytest.mark.parametrize("kind", SECOND)
def test_second_order_on_a_quadratic(kind, rate, drift):
    seen, gradient = architecture_gradient(
        kind, quadratic_train, quadratic_validation, W, A, rate, drift
    )
    ahead = W - rate * (drift + W - A)
    assert seen == pytest.approx(ahead, abs=1e-6)
    assert gradient == pytest.approx(rate * (ahead - 1), abs=1e-4)


def coupled(seed):
    """Losses that mix vectors of weights and of the architecture in all ways."""
    mix, bend = jax.random.normal(jax.random.key(seed), (2, 3, 3))

    def train(w, a):
        return jnp.sum(jnp.tanh(mix @ w["w"]) * a["a"]) + jnp.sum(w["w"] ** 2 * a["a"])

    def validation(w, a):
        return jnp.sum(jnp.sin(bend @ w["w"]) * a["a"] ** 2), None

    values = jax.random.normal(jax.random.key(seed + 1), (3, 3))
    params, architecture, drift = (
        {"w": values[0]},
        {"a": values[1]},
        {"w": values[2]},
    )
    return partial(
        architecture_gradient,
        train_loss=train,
        validation_loss=validation,
        params=params,
        architecture=architecture,
        drift=drift,
    )


@pytest.mark.parametrize("kind", SECOND)
def test_second_order_without_a_step_is_first_order_exactly(kind):
    gradient = coupled(0)
    _, first = gradient("first", rate=0.1)
    _, second = gradient(kind, rate=0.0)
    np.testing.assert_array_equal(first["a"], second["a"])


@pytest.mark.parametrize("seed", range(3))
def test_finite_differences_approach_the_exact_gradient(seed):
    gradient = coupled(seed)
    _, first = gradient("first", rate=0.1)
    _, exact = gradient("exact", rate=0.1)
    _, approximate = gradient("finite_difference", rate=0.1)
    error = np.abs(approximate["a"] - exact["a"]).max()
    assert error < 1e-2 * np.abs(first["a"] - exact["a"]).max()


def test_a_validation_loss_without_slope_leaves_the_direct_part():
    def flat(w, a):
        return jnp.sum(a**2) + 0 * w, None

    _, gradient = architecture_gradient(
        "finite_difference", quadratic_train, flat, W, A, 0.5, 0.0
    )
    assert gradient == pytest.approx(2 * A)
