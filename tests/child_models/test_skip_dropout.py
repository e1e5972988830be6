"""The decay of skip dropout, against the published code's numbers."""

import math

import jax.numpy as jnp
import pytest

from child_models.skip_dropout import skip_dropout_factor


def factor(epoch, epochs=25, rest=10):
    return float(skip_dropout_factor(jnp.int32(epoch), epochs, rest))


@pytest.mark.parametrize("start", [0, 25])  # a second stage is like the first
def test_the_rate_falls_linearly_and_then_exponentially_from_the_top(start):
    expected = [(25 - e - 1) / 25 for e in range(10)]
    expected += [math.exp(-0.2 * (e - 10)) for e in range(10, 25)]
    found = [factor(start + e) for e in range(25)]
    assert found == pytest.approx(expected, rel=1e-5)
    assert found[10] == 1 and found[0] == pytest.approx(0.96)


def test_without_a_rest_it_is_exponential():
    assert factor(3, rest=0) == pytest.approx(math.exp(-0.6))
