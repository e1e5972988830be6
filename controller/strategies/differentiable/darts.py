"""DARTS: a softmax over the ops of an edge, learnt by gradients.

Liu et al. 2019, https://arxiv.org/abs/1806.09055.  First or second order is a matter of
the evaluator, ``evaluator.hypergradient``.
"""

from controller.spec import DecisionSpec
from controller.strategies.differentiable.core import (
    Adam,
    Relaxation,
    differentiable,
    normal_logits,
    softmax_weights,
)
from controller.types import Strategy


def darts(
    spec: DecisionSpec,
    *,
    learning_rate: float = 3e-4,
    weight_decay: float = 1e-3,
    adam_b1: float = 0.5,
    adam_b2: float = 0.999,
    init_scale: float = 1e-3,
) -> Strategy:
    """Builds the strategy.

    Args:
      spec: of the space.
      learning_rate: of Adam.
      weight_decay: L2 coefficient of the logits.
      adam_b1, adam_b2: decays of Adam's moments.
      init_scale: standard deviation of the first logits.

    Returns:
      a Strategy.

    Raises:
      ValueError: on a number out of its range.
    """
    return differentiable(
        spec,
        Relaxation(normal_logits(spec, init_scale), softmax_weights),
        Adam(learning_rate, weight_decay, adam_b1, adam_b2),
    )
