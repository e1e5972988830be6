"""REINFORCE with a moving baseline, as ENAS trains its controller.

Pham et al. 2018, https://arxiv.org/abs/1802.03268; Zoph & Le 2017,
https://arxiv.org/abs/1611.01578.  ENAS's code adds the entropy to the reward; here it
enters the loss.  ENAS's code updates the baseline before it computes the advantage;
here that is ``baseline_first=True``.
"""

from collections.abc import Mapping
from typing import Any

from controller.losses import reinforce_loss
from controller.policies.lstm import policy_from_options
from controller.spec import DecisionSpec
from controller.strategies.policy_gradient import Baseline, growth, policy_gradient
from controller.types import Strategy


def reinforce(
    spec: DecisionSpec,
    *,
    learning_rate: float = 1e-3,
    baseline_decay: float = 0.95,
    baseline_first: bool = False,
    baseline_init: float | None = None,
    entropy_weight: float = 0.0,
    skip_weight: float = 0.0,
    clip_norm: float | None = None,
    adam_b1: float = 0.9,
    adam_epsilon: float = 1e-8,
    growth_samples: int = 0,
    policy: Mapping[str, Any] | None = None,
) -> Strategy:
    """Builds the strategy; one step of Adam an update, on the mean over n samples.

    Args:
      spec: of the space.
      learning_rate: of Adam; ENAS has 3.5e-3 in the micro space, 1e-3 in the macro one.
      baseline_decay: d of b <- d b + (1 - d) mean(R), once an update.  ENAS has 0.99
        once a sample, which is 0.99^n here.
      baseline_first: whether the advantage uses the baseline after its update.  With
        one sample that is the same but for a factor: R - b_new = d (R - b_old).
      baseline_init: where the baseline starts, 0 in ENAS; None for the mean reward of
        the first trials.
      entropy_weight: of the entropy bonus in the loss; 1e-4 in ENAS (in the reward).
      skip_weight: of the prior on skips; 0.8 in ENAS's macro space.
      clip_norm: largest global norm of a gradient; None for no limit.
      adam_b1: decay of Adam's first moment; 0 in ENAS.
      adam_epsilon: Adam's epsilon; 1e-3 in ENAS.
      growth_samples: valid samples until the decision of group "blocks" (the number of
        layers) goes from one choice to the next, beginning with the first; 1,600 in
        Zoph & Le 2017.  0 where it is a decision of the policy like any other.
      policy: arguments of `lstm_policy`.

    Returns:
      a Strategy.

    Raises:
      ValueError: on a number out of its range, or an unknown argument of the policy.
    """
    return policy_gradient(
        policy_from_options(spec, policy),
        lambda log_prob, _, advantage, valid: reinforce_loss(
            log_prob, advantage, valid
        ),
        learning_rate=learning_rate,
        baseline=Baseline(baseline_decay, baseline_first, baseline_init),
        entropy_weight=entropy_weight,
        skip_weight=skip_weight,
        clip_norm=clip_norm,
        adam_b1=adam_b1,
        adam_epsilon=adam_epsilon,
        growth=growth(spec, growth_samples),
    )
