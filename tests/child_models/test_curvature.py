"""The dominant eigenvalue where the spectrum is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from child_models.curvature import dominant_eigenvalue, shifted

POINT = {"a": jnp.arange(3.0), "b": jnp.full((2, 1), -1.0)}


def quadratic(spectrum):
    """x^T H x / 2 + sum(x) of a Hessian with this spectrum, on points like `POINT`."""
    basis, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((5, 5)))
    hessian = jnp.asarray(basis * spectrum @ basis.T, jnp.float32)

    def loss(point):
        x = jnp.concatenate([point["a"], point["b"].ravel()])
        return x @ hessian @ x / 2 + x.sum()

    return loss


@pytest.mark.parametrize(
    ("spectrum", "dominant"),
    [
        ((4.0, 2.0, -1.0, 0.0, 0.5), 4.0),
        ((-4.0, 2.0, 2.0, 1.0, 0.0), -4.0),
        ((0.0, 0.0, 0.0, 0.0, 0.0), 0.0),
    ],
)
def test_a_quadratic(spectrum, dominant):
    loss = quadratic(np.array(spectrum))
    for seed in range(3):
        value = dominant_eigenvalue(jax.random.key(seed), loss, POINT, 16)
        assert value == pytest.approx(dominant, abs=1e-4)


def test_it_is_that_of_the_whole_hessian():
    def loss(point):
        return jnp.sum(jnp.sin(point["a"])) * jnp.exp(point["b"].sum()) + jnp.sum(
            point["a"] ** 4
        )

    flat, rejoin = jax.flatten_util.ravel_pytree(POINT)
    whole = np.linalg.eigvalsh(jax.hessian(lambda x: loss(rejoin(x)))(flat))
    value = dominant_eigenvalue(jax.random.key(0), loss, POINT, 30)
    assert value == pytest.approx(whole[np.abs(whole).argmax()], rel=1e-4)


def test_a_shift_of_the_weights_is_one_of_their_logits():
    logits, shift = jax.random.normal(jax.random.key(0), (2, 3, 4))
    live = jnp.arange(4)[None] < jnp.array([[4], [2], [1]])
    shares = jnp.array([[0.5], [1.0], [0.0]])

    def weights(logits):
        return shares * jax.nn.softmax(logits, axis=-1, where=live)

    moved = shifted({"op": weights(logits)}, {"op": shift})["op"]
    np.testing.assert_allclose(moved, weights(logits + shift), atol=1e-6)
    zero = jnp.zeros_like(shift)
    np.testing.assert_allclose(
        jax.jacobian(lambda s: shifted(weights(logits), s))(zero),
        jax.jacobian(weights)(logits),
        atol=1e-6,
    )
