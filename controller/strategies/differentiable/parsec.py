"""PARSEC: categorical distributions, learnt by importance-weighted samples.

Casale et al. 2019, https://arxiv.org/abs/1902.05116.  With p(y | a) the likelihood of
labels under architecture a, and K samples a_k ~ pi,

    grad log sum_a p(y | a) pi(a)  ~  sum_k omega_k grad log pi(a_k),
    omega_k = p(y | a_k) / sum_j p(y | a_j).

The evaluator's reward is to be the negative mean loss, ``reward="negative_loss"``, and
``shared_weights`` trains weights by the same estimate, with ``architectures_per_step``
and ``likelihood_temperature``.  The paper's likelihood is the product over a batch of S
images, a temperature of 1 / S.  As in the paper a node of the space ``darts`` draws two
(state, op) pairs: two different states, each with an op, see
`controller.policies.inputs`.  Elsewhere a categorical distribution is one decision's.
"""

import jax
import jax.numpy as jnp

from controller.policies.categorical import categorical_policy
from controller.policies.inputs import decides_presence, input_policy
from controller.spec import DecisionSpec
from controller.strategies.policy_gradient import Baseline, policy_gradient
from controller.types import Strategy


def parsec(
    spec: DecisionSpec,
    *,
    temperature: float = 1.0,
    learning_rate: float = 3e-3,
    entropy_weight: float = 0.0,
    clip_norm: float | None = None,
    adam_b1: float = 0.9,
    adam_epsilon: float = 1e-8,
    init_scale: float = 1e-3,
) -> Strategy:
    """Builds the strategy; its first candidate is the mode of the distribution.

    Where another rule than that of DARTS's space ties decisions together, it is the
    most probable choice of each decision in turn.

    Args:
      spec: of the space.
      temperature: difference of rewards by which weights differ e-fold; with one of
        1 / S the best of the samples takes nearly all.
      learning_rate: of Adam.
      entropy_weight: of an entropy bonus in the loss; 0 in the paper.
      clip_norm: largest global norm of a gradient; None for no limit.
      adam_b1: decay of Adam's first moment.
      adam_epsilon: Adam's epsilon.
      init_scale: standard deviation of the first logits.

    Returns:
      a Strategy.

    Raises:
      ValueError: on a number out of its range.
    """
    if not temperature > 0:
        raise ValueError(f"temperature is {temperature}; it must be positive")

    def surrogate(log_prob, log_prob_old, advantage, valid):
        return -jnp.sum(importance(advantage / temperature, valid) * log_prob)

    policy = input_policy if decides_presence(spec) else categorical_policy
    return policy_gradient(
        policy(spec, init_scale=init_scale),
        surrogate,
        learning_rate=learning_rate,
        baseline=Baseline(0.95, False, None),  # softmax does not see it
        entropy_weight=entropy_weight,
        skip_weight=0.0,
        clip_norm=clip_norm,
        adam_b1=adam_b1,
        adam_epsilon=adam_epsilon,
    )


def importance(log_likelihood: jax.Array, valid: jax.Array) -> jax.Array:
    """Self-normalised weights ``softmax(log likelihood)`` of the valid samples.

    Args:
      log_likelihood: float[n], up to a constant; those that are not valid may be NaN.
      valid: bool[n].

    Returns:
      float[n], of sum 1, without a gradient; all 0 where none is valid.
    """
    finite = jnp.where(valid, log_likelihood, 0)
    return jax.lax.stop_gradient(jax.nn.softmax(finite, where=valid))
