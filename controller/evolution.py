"""Operators of a genetic algorithm on decision vectors, as pure traceable functions.

Xie & Yuille 2017, Genetic CNN, https://arxiv.org/abs/1703.01513, section 3.2.  There an
individual is a string of bits; here, any decision vector of a `DecisionSpec`.

Shapes: N individuals, T decisions, V choices (padded).
"""

import jax
import jax.numpy as jnp
import numpy as np

from controller.spec import DecisionSpec


def stage_of(spec: DecisionSpec) -> np.ndarray:
    """The stage of each decision: the part of its name before the last slash.

    A decision without a slash in its name is a stage of its own.

    Args:
      spec: whose decisions have names such as "stage_1/1-2" or "normal/3/op_left".

    Returns:
      int[T], stages numbered in order of appearance.
    """
    names = [d.name.rpartition("/")[0] or d.name for d in spec.decisions]
    order = list(dict.fromkeys(names))
    return np.array([order.index(name) for name in names])


def uniform_population(spec: DecisionSpec, key: jax.Array, n: int) -> jax.Array:
    """Draws int32[n, T] by `DecisionSpec.sample`; fair bits where choices are two."""
    return jax.vmap(spec.sample)(jax.random.split(key, n))


def roulette_probabilities(fitness: jax.Array, valid: jax.Array) -> jax.Array:
    """Russian roulette: ``P(i) = (r_i - r_min) / sum_j (r_j - r_min)``.

    The worst is never selected.  Where all that are valid have the same fitness, they
    have equal probability; where none is valid, all have.

    Args:
      fitness: float[N], r; those that are not valid may be NaN.
      valid: bool[N]; the others have probability 0, and do not count for r_min.

    Returns:
      float[N], of sum 1.

    References:
      Xie & Yuille 2017, section 3.2.2.
    """
    eligible = valid | ~valid.any()
    worst = jnp.min(jnp.where(valid, fitness, jnp.inf))
    weight = jnp.where(valid, fitness - worst, 0.0)
    weight = jnp.where(weight.sum() > 0, weight, eligible.astype(weight.dtype))
    return weight / weight.sum()


def roulette(key: jax.Array, fitness: jax.Array, valid: jax.Array, n: int) -> jax.Array:
    """Selects n individuals with replacement by `roulette_probabilities`.

    Args:
      key: consumed.
      fitness: float[N].
      valid: bool[N].
      n: how many.

    Returns:
      int32[n], indices below N.
    """
    # In logarithms, as an individual of probability 0 must never be drawn.
    logits = jnp.log(roulette_probabilities(fitness, valid))
    return jax.random.categorical(key, logits, shape=(n,)).astype(jnp.int32)


def crossover(
    key: jax.Array,
    decisions: jax.Array,
    stage: np.ndarray,
    pair_probability: float,
    stage_probability: float,
) -> tuple[jax.Array, jax.Array]:
    """Exchanges whole stages between individuals 0 and 1, 2 and 3, ...

    Each pair is crossed with one probability, and each stage of a crossed pair is
    exchanged with another; decisions of a stage stay together.  An odd one stays.

    Args:
      key: consumed.
      decisions: int32[N, T].
      stage: int[T], see `stage_of`.
      pair_probability: p_C.
      stage_probability: q_C.

    Returns:
      int32[N, T], and bool[N]: who was crossed, be it without an exchange.

    References:
      Xie & Yuille 2017, section 3.2.3.
    """
    pairs, stages = len(decisions) // 2, int(stage.max()) + 1
    draw = jax.random.uniform(key, (pairs, 1 + stages))  # one is faster to compile
    crossed, exchanged = draw[:, 0] < pair_probability, draw[:, 1:] < stage_probability
    swap = (exchanged & crossed[:, None])[:, stage]  # [pairs, T]
    left, right = decisions[0 : 2 * pairs : 2], decisions[1 : 2 * pairs : 2]
    both = jnp.stack(
        [jnp.where(swap, right, left), jnp.where(swap, left, right)], axis=1
    ).reshape(2 * pairs, -1)
    children = jnp.concatenate([both, decisions[2 * pairs :]])
    rest = jnp.zeros(len(decisions) - 2 * pairs, bool)
    return children, jnp.concatenate([jnp.repeat(crossed, 2), rest])


def mutate_each(
    spec: DecisionSpec, key: jax.Array, decisions: jax.Array, probability: jax.Array
) -> jax.Array:
    """Changes each decision with some probability to another legal choice.

    Decisions are taken in turn: the new choice is uniform over the others that the new
    prefix allows, and a choice that the new prefix forbids is drawn anew in any case.
    A bit flips.

    Args:
      spec: of the space.
      key: consumed.
      decisions: int32[N, T]; need not be legal.
      probability: float[N], q_M of each individual.

    Returns:
      int32[N, T], legal.

    References:
      Xie & Yuille 2017, section 3.2.3.
    """
    # Whoever has the largest noise is chosen: all are equally likely.
    draw = jax.random.uniform(key, (*decisions.shape, 1 + spec.max_choices))
    change, noise = draw[..., 0] < probability[:, None], draw[..., 1:]
    choices = jnp.arange(spec.max_choices)

    def step(prefix, inputs):
        t, old, change, noise = inputs
        legal = spec.legal(prefix, t)
        others = legal & (choices != old)
        new = jnp.argmax(jnp.where(others, noise, -jnp.inf)).astype(jnp.int32)
        moves = (change & others.any()) | ~legal[old]
        return prefix.at[t].set(jnp.where(moves, new, old)), None

    def one(decisions, change, noise):
        start = jnp.zeros(spec.length, jnp.int32)
        inputs = (jnp.arange(spec.length), decisions, change, noise)
        return jax.lax.scan(step, start, inputs)[0]

    return jax.vmap(one)(decisions, change, noise)
