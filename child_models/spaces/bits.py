"""Bits that say who reads whom, as coefficients of sums.

A coefficient is 0 or 1 of a fixed child, a float32[] of a sampled one, and of a relaxed
one the probability that something holds if bits are independent.
"""

import math
from collections.abc import Iterable

import jax

from child_models.choice import Choice, is_fixed
from child_models.picking import indicator

Coefficient = int | jax.Array


def coefficients(bit: Choice) -> tuple[Coefficient, Coefficient]:
    """Those of "no" and of "yes"."""
    return (1 - bit, bit) if is_fixed(bit) else tuple(indicator(bit, 2))


def product(factors: Iterable[Coefficient]) -> Coefficient:
    """That all hold; a fixed 0 where a factor is one, and 1 of none."""
    factors = list(factors)
    return 0 if any(is_absent(f) for f in factors) else math.prod(factors)


def is_absent(coefficient: Coefficient) -> bool:
    """Whether it is a fixed 0."""
    return is_fixed(coefficient) and coefficient == 0


def scaled(coefficient: Coefficient, x: jax.Array) -> jax.Array:
    """The array times its coefficient; itself where that is fixed, and not 0."""
    return x if is_fixed(coefficient) else coefficient.astype(x.dtype) * x
