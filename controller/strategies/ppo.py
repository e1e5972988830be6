"""Proximal policy optimisation with clipping, as NASNet trains its controller.

Zoph et al. 2018, https://arxiv.org/abs/1707.07012; Schulman et al. 2017,
https://arxiv.org/abs/1707.06347.  The paper does not state the clipping and the number
of epochs; the defaults are customary.
"""

import functools
from collections.abc import Mapping
from typing import Any

from controller.losses import ppo_clip_loss
from controller.policies.lstm import policy_from_options
from controller.spec import DecisionSpec
from controller.strategies.policy_gradient import Baseline, policy_gradient
from controller.types import Strategy


def ppo(
    spec: DecisionSpec,
    *,
    learning_rate: float = 3.5e-4,
    epsilon: float = 0.2,
    epochs: int = 4,
    baseline_decay: float = 0.95,
    baseline_first: bool = False,
    baseline_init: float | None = None,
    entropy_weight: float = 1e-5,
    skip_weight: float = 0.0,
    clip_norm: float | None = None,
    policy: Mapping[str, Any] | None = None,
) -> Strategy:
    """Builds the strategy; `epochs` steps of Adam an update, on all n samples each.

    Args:
      spec: of the space.
      learning_rate: of Adam.
      epsilon: how far the probability of a sample may move before its gradient stops.
      epochs: steps of Adam in an update; the first one is REINFORCE's.
      baseline_decay: d of b <- d b + (1 - d) mean(R).
      baseline_first: whether the advantage uses the baseline after its update.
      baseline_init: where the baseline starts; None for the mean reward of the first
        trials.
      entropy_weight: of the entropy bonus in the loss.
      skip_weight: of the prior on skips.
      clip_norm: largest global norm of a gradient; None for no limit.
      policy: arguments of `lstm_policy`.

    Returns:
      a Strategy.

    Raises:
      ValueError: on a number out of its range, or an unknown argument of the policy.
    """
    if not 0 < epsilon < 1:
        raise ValueError(f"epsilon is {epsilon}; it must lie in (0, 1)")
    return policy_gradient(
        policy_from_options(spec, policy),
        functools.partial(ppo_clip_loss, epsilon=epsilon),
        learning_rate=learning_rate,
        baseline=Baseline(baseline_decay, baseline_first, baseline_init),
        entropy_weight=entropy_weight,
        skip_weight=skip_weight,
        clip_norm=clip_norm,
        epochs=epochs,
    )
