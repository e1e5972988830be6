"""PC-DARTS: DARTS with normalised edges; the channels are an argument of the space.

Xu et al. 2020, https://arxiv.org/abs/1907.05737.  The weight of op o on edge e is
softmax(beta over the edges into one node)[e] softmax(alpha[e])[o].  A node's edges are
the decisions of one `Decision.node` and group; decisions of no node stand alone.
"""

import jax
import jax.numpy as jnp
import numpy as np

from controller.spec import DecisionSpec
from controller.strategies.differentiable.core import (
    Adam,
    Relaxation,
    differentiable,
    normal_logits,
    softmax_of_live,
)
from controller.strategies.differentiable.named import (
    ByGroup,
)
from controller.types import Strategy


def pc_darts(
    spec: DecisionSpec,
    *,
    learning_rate: float = 6e-4,
    weight_decay: float = 1e-3,
    adam_b1: float = 0.5,
    adam_b2: float = 0.999,
    init_scale: float = 1e-3,
) -> Strategy:
    """Builds the strategy; alpha and beta have one Adam.

    The paper trains both from epoch 15 of 50: ``schedule.warmup_rounds``.

    Args:
      spec: of the space.
      learning_rate: of Adam.
      weight_decay: L2 coefficient of alpha and beta.
      adam_b1, adam_b2: decays of Adam's moments.
      init_scale: standard deviation of the first alpha and beta.

    Returns:
      a Strategy.

    Raises:
      ValueError: on a number out of its range.
    """

    def init(key):
        alpha_key, beta_key = jax.random.split(key)
        beta = normal_logits(spec, init_scale)(beta_key)
        return {
            "alpha": normal_logits(spec, init_scale)(alpha_key),
            "beta": jax.tree.map(lambda rows: rows[:, 0], beta),
        }

    def weights(params, live, step):
        shares = edge_shares(spec, params["beta"])
        ops = softmax_of_live(params["alpha"], live)
        return {group: shares[group][:, None] * ops[group] for group in ops}

    return differentiable(
        spec,
        Relaxation(init, weights),
        Adam(learning_rate, weight_decay, adam_b1, adam_b2),
    )


def edge_shares(spec: DecisionSpec, beta: ByGroup) -> ByGroup:
    """Softmax of each edge's logit over the edges of its node: float[rows] by group."""
    shares = {}
    for group, members in spec.groups.items():
        nodes = np.array([_node(spec, t) for t in members])
        peers = jnp.asarray(nodes[:, None] == nodes)
        logits = jnp.broadcast_to(beta[group], peers.shape)
        shares[group] = jnp.diagonal(jax.nn.softmax(logits, axis=1, where=peers))
    return shares


def _node(spec, t):
    """The node of a decision; a number of its own where it helps to build none."""
    node = spec.decisions[t].node
    return node if node >= 0 else -1 - t
