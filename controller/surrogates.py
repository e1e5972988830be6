"""Models of the reward as a function of the decisions, fitted to scored trials.

All are traceable: trials come in buffers of fixed size with a mask.

Shapes: m trials of room, c candidates, T decisions, V choices, E members.
"""

import functools
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from controller.spec import DecisionSpec, has_levels
from controller.types import Key


class Surrogate(NamedTuple):
    """A model of the reward.

    Attributes:
      fit: ``(key, decisions int32[m, T], reward float32[m], mask bool[m]) -> params``.
      predict: ``(params, decisions int32[c, T]) -> float32[c]``.
    """

    fit: Callable[[Key, jax.Array, jax.Array, jax.Array], Any]
    predict: Callable[[Any, jax.Array], jax.Array]


def _standardised(reward, mask):
    """Rewards with mean 0 and deviation 1 over the mask, 0 elsewhere."""
    count = jnp.maximum(jnp.sum(mask), 1)
    reward = jnp.where(mask, reward, 0)
    mean = jnp.sum(reward) / count
    centred = jnp.where(mask, reward - mean, 0)
    return centred / jnp.sqrt(jnp.sum(centred**2) / count + 1e-12)


def _ranked(reward, mask):
    """Normal quantiles of the rewards' ranks over the mask, 0 elsewhere.

    Equal rewards share the mean of their ranks.  A few architectures that do not learn
    at all would rule a squared error.
    """
    count = jnp.maximum(jnp.sum(mask), 1)
    reward = jnp.where(mask, reward, jnp.inf)
    below = jnp.sum(reward[None] < reward[:, None], axis=1)
    upto = jnp.sum(reward[None] <= reward[:, None], axis=1)
    quantile = jax.scipy.stats.norm.ppf((below + upto) / (2 * count))
    return jnp.where(mask, quantile, 0)


# ---- linear -------------------------------------------------------------------------


def pairwise_features(spec: DecisionSpec, decisions: jax.Array) -> jax.Array:
    """One-hot choices, and the products of those of every two decisions.

    Args:
      spec: of the space.
      decisions: int32[c, T].

    Returns:
      float32[c, F], F = sum_t V_t + sum_{s < t} V_s V_t; each half scaled so that two
      equal architectures have the product 1.
    """
    hot = [jax.nn.one_hot(decisions[:, t], n) for t, n in enumerate(spec.num_choices)]
    pairs = [
        (a[:, :, None] * b[:, None, :]).reshape(len(decisions), -1)
        for a, b in itertools.combinations(hot, 2)
    ]
    one = jnp.concatenate(hot, axis=1) / np.sqrt(2 * len(hot))
    if not pairs:
        return one * np.sqrt(2)
    return jnp.concatenate([one, *(p / np.sqrt(2 * len(pairs)) for p in pairs)], axis=1)


def pairwise_kernel(decisions: jax.Array) -> jax.Array:
    """float32[m, m]: the products of `pairwise_features`, by counting equal decisions.

    Of T decisions, e of them equal: e / 2T + e (e - 1) / (2T (T - 1)).

    >>> pairwise_kernel(jnp.array([[0, 1, 2], [0, 1, 0]])).round(3).tolist()
    [[1.0, 0.5], [0.5, 1.0]]
    """
    length = decisions.shape[1]
    same = sum(column[:, None] == column[None] for column in decisions.T)
    if length == 1:
        return same.astype(jnp.float32)
    return same / (2 * length) + same * (same - 1) / (2 * length * (length - 1))


def linear(
    spec: DecisionSpec, *, ridge: float = 0.03, explore: float = 0.0
) -> Surrogate:
    """Ridge regression on `pairwise_features`: of Gaussian weights, the posterior mean.

    It knows nothing of choices that no trial has, so that it cannot rank the blocks
    that progressive search adds; the networks can.

    Args:
      spec: of the space.
      ridge: variance of the noise, where that of a reward is 1.
      explore: scale s of a draw from the posterior that takes the mean's place, by
        fitting targets with noise s N(0, ridge) from weights s N(0, 1) (Thompson
        sampling); 0 for the mean.

    Raises:
      ValueError: on a number out of its range.
    """
    if not ridge > 0:
        raise ValueError(f"ridge is {ridge}; it must be positive")
    if not explore >= 0:
        raise ValueError(f"explore is {explore}; it must be 0 or more")

    def fit(key, decisions, reward, mask):
        x = jnp.where(mask[:, None], pairwise_features(spec, decisions), 0)
        target, prior = _ranked(reward, mask), 0.0
        if explore:
            prior_key, noise_key = jax.random.split(key)
            prior = explore * jax.random.normal(prior_key, (x.shape[1],))
            noise = jax.random.normal(noise_key, target.shape) * np.sqrt(ridge)
            target = target + explore * noise - x @ prior
        # In the dual form, for there are fewer trials than features.
        gram = pairwise_kernel(decisions) * (mask[:, None] & mask[None])
        gram = gram + ridge * jnp.eye(len(x))
        target = jnp.where(mask, target, 0)
        return prior + x.T @ jax.scipy.linalg.solve(gram, target, assume_a="pos")

    def predict(params, decisions):
        return pairwise_features(spec, decisions) @ params

    return Surrogate(fit, predict)


# ---- networks -----------------------------------------------------------------------


class _Embedding(nn.Module):
    """Embeddings [T, width] of one architecture; a table for each group."""

    spec: DecisionSpec
    width: int

    @nn.compact
    def __call__(self, decisions):
        groups, most = list(self.spec.groups), self.spec.max_choices
        shape = (len(groups) * most, self.width)
        table = self.param("table", nn.initializers.normal(1.0), shape)
        first = [groups.index(d.group) * most for d in self.spec.decisions]
        return table[decisions + jnp.array(first)]


class _MLP(nn.Module):
    """On the mean of the embeddings, each scaled by its place.

    Where the number of blocks is a decision, on the mean over those that there are: a
    block's embedding joins those of its decisions, and is the same at every place, so
    that a block that no trial has is known by those like it.
    """

    spec: DecisionSpec
    width: int
    hidden: int

    @nn.compact
    def __call__(self, decisions):
        x = _Embedding(self.spec, self.width)(decisions)
        if has_levels(self.spec):
            x = self._mean_block(x, decisions[0] + 1)
        else:
            place = self.param("place", nn.initializers.normal(1.0), x.shape)
            x = jnp.mean(x * place, axis=0)
        x = nn.relu(nn.Dense(self.hidden)(x))
        return nn.Dense(1)(x)[0]

    def _mean_block(self, x, count):
        """[D width] of [T, width], D decisions of the largest block."""
        members = _blocks(self.spec)
        most = max(map(len, members))
        absent = len(x)  # row of zeros
        index = np.array([m + [absent] * (most - len(m)) for m in members])
        rows = jnp.concatenate([x, jnp.zeros((1, self.width))])[index]
        there = jnp.arange(len(members)) < count
        blocks = rows.reshape(len(members), -1) * there[:, None]
        return jnp.sum(blocks, axis=0) / count


def _blocks(spec):
    """The decisions of each block, where their number is decision 0."""
    return [
        [t for t, d in enumerate(spec.decisions) if d.node == block]
        for block in range(spec.num_choices[0])
    ]


class _LSTM(nn.Module):
    """Over the embeddings in turn, then a linear layer on the last state.

    Where the number of blocks is a decision, the last state is that of the last block.
    """

    spec: DecisionSpec
    width: int
    hidden: int

    @nn.compact
    def __call__(self, decisions):
        x = _Embedding(self.spec, self.width)(decisions)
        last = len(x) - 1
        if has_levels(self.spec):
            ends = np.cumsum(list(map(len, _blocks(self.spec))))
            last = jnp.array(ends)[decisions[0]]
        x = nn.RNN(nn.OptimizedLSTMCell(self.hidden))(x)
        return nn.Dense(1)(x[last])[0]


_PART = 2048  # candidates that networks predict at once
NETWORKS = {"mlp": _MLP, "lstm": _LSTM}


def ensemble(
    spec: DecisionSpec,
    *,
    network: str = "mlp",
    members: int = 5,
    width: int = 100,
    hidden: int = 100,
    steps: int = 200,
    learning_rate: float = 0.01,
) -> Surrogate:
    """Networks on four fifths of the trials each, whose mean predicts.

    PNAS, Liu et al. 2018, https://arxiv.org/abs/1712.00559, section 4.2 and appendix
    A: the L1 loss, Adam.  Rewards are standardised, so that the networks end without a
    sigmoid.  Every fit begins anew at one learning rate; the paper's goes on at a fifth
    of the first.

    Args:
      spec: of the space.
      network: "mlp" on the mean of the blocks' embeddings, or "lstm".
      members: E.
      width: of an embedding.
      hidden: units.
      steps: of Adam, each on all trials.
      learning_rate: of Adam.

    Raises:
      ValueError: on an unknown network or a number out of its range.
    """
    if network not in NETWORKS:
        raise ValueError(f"network is {network!r}; known: {', '.join(NETWORKS)}")
    for name, value in (("members", members), ("width", width), ("hidden", hidden)):
        if value < 1:
            raise ValueError(f"{name} is {value}; it must be 1 or more")
    if steps < 1 or not learning_rate > 0:
        raise ValueError(
            f"steps is {steps} and learning_rate {learning_rate}; both must be positive"
        )
    module = NETWORKS[network](spec, width, hidden)
    apply = jax.vmap(module.apply, in_axes=(None, 0))
    optimizer = optax.adam(learning_rate)

    def fit_one(key, fold, decisions, reward, mask):
        count = jnp.maximum(jnp.sum(mask), 1)
        order = jnp.cumsum(mask) - 1
        left_out = (order % members == fold) & (count > members) & (members > 1)
        mask = mask & ~left_out
        params = module.init(key, decisions[0])

        def loss(params):
            error = jnp.abs(apply(params, decisions) - reward)
            return jnp.sum(jnp.where(mask, error, 0)) / jnp.maximum(jnp.sum(mask), 1)

        def step(carry, _):
            params, state = carry
            updates, state = optimizer.update(jax.grad(loss)(params), state, params)
            return (optax.apply_updates(params, updates), state), None

        start = (params, optimizer.init(params))
        (params, _), _ = jax.lax.scan(step, start, length=steps)
        return params

    def fit(key, decisions, reward, mask):
        reward = _standardised(reward, mask)
        keys, folds = jax.random.split(key, members), jnp.arange(members)
        return jax.vmap(fit_one, in_axes=(0, 0, None, None, None))(
            keys, folds, decisions, reward, mask
        )

    def predict(params, decisions):
        def one(row):
            return jnp.mean(jax.vmap(module.apply, (0, None))(params, row))

        # In parts, for the embeddings of all candidates may not fit into memory.
        return jax.lax.map(one, decisions, batch_size=min(_PART, len(decisions)))

    return Surrogate(fit, predict)


SURROGATES: dict[str, Callable[..., Surrogate]] = {
    "linear": linear,
    "mlp": functools.partial(ensemble, network="mlp"),
    "lstm": functools.partial(ensemble, network="lstm"),
}
