"""The children's optimiser against hand-worked steps."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from child_models.optimizer import cosine_restarts, sgd


def two_steps(grads, **options):
    """Parameters after two steps of rate 0.1 from (1, 1)."""
    optimizer = sgd(0.1, **options)
    params = jnp.ones(2)
    state = optimizer.init(params)
    for gradient in grads:
        updates, state = optimizer.update(jnp.array(gradient), state, params)
        params = optax.apply_updates(params, updates)
    return params


def test_nesterov_momentum_by_hand():
    params = two_steps([[1.0, 2.0], [1.0, 2.0]], momentum=0.5)
    # Traces g and 1.5 g; steps g + 0.5 g and g + 0.5 * 1.5 g.
    np.testing.assert_allclose(params, 1 - 0.1 * (1.5 + 1.75) * np.array([1.0, 2.0]))


def test_weight_decay_is_added_after_clipping():
    params = two_steps([[3.0, 4.0]], momentum=0.0, weight_decay=0.5, clip_norm=1.0)
    np.testing.assert_allclose(params, 1 - 0.1 * (np.array([0.6, 0.8]) + 0.5))


@pytest.mark.parametrize(
    ("unsampled", "expected"),
    # One step of momentum 0.5 on a gradient of 1, then a gradient of zero.
    [("frozen", 1 - 0.15), ("decay", 1 - 0.15 - 0.1 * 0.5 * 0.5)],
)
def test_weights_that_a_step_did_not_sample(unsampled, expected):
    grads = [[1.0, 1.0], [0.0, 1.0]]
    params = two_steps(grads, momentum=0.5, unsampled=unsampled)
    np.testing.assert_allclose(params[0], expected, rtol=1e-6)
    np.testing.assert_allclose(params[1], 1 - 0.1 * (1.5 + 1.75), rtol=1e-6)


def test_cosine_restarts_by_hand():
    rate = cosine_restarts(1.0, 0.2, 10, 2)
    for step, value in [(0, 1.0), (5, 0.6), (10, 1.0), (20, 0.6), (30, 1.0)]:
        assert float(rate(step)) == pytest.approx(value, abs=1e-6)
    equal = cosine_restarts(1.0, 0.0, 10)
    assert float(equal(25)) == pytest.approx(0.5, abs=1e-6)


def test_long_periods_stay_within_steps_of_int32():
    assert float(cosine_restarts(1.0, 0.0, 12_500, 3)(jnp.int32(0))) == 1.0


@pytest.mark.parametrize(
    ("build", "text"),
    [
        (lambda: cosine_restarts(0.0, 0.0, 10), "learning_rate is 0.0"),
        (lambda: cosine_restarts(0.1, 0.2, 10), "min_learning_rate is 0.2"),
        (lambda: cosine_restarts(0.1, 0.0, 10, 0), "restart_factor is 0"),
        (lambda: sgd(0.1, momentum=1.0), "momentum is 1.0"),
        (lambda: sgd(0.1, weight_decay=-1.0), "weight_decay is -1.0"),
        (lambda: sgd(0.1, clip_norm=0.0), "clip_norm is 0.0"),
        (lambda: sgd(0.1, unsampled="gone"), "known: frozen, decay"),
    ],
)
def test_refuses(build, text):
    with pytest.raises(ValueError, match=text):
        build()
