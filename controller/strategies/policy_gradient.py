"""What strategies that learn a policy by gradients of the reward have in common.

An update takes the advantages A = R - b of n trials, moves the baseline b, and then
does one or more steps of Adam on

    surrogate(log pi, log pi_old, A) - entropy_weight H + skip_weight KL,

each a mean over the valid trials.  H is the entropy of the steps' distributions along
the sampled architectures; it enters the loss and not the reward, and its gradient does
not count how the choice of an architecture changes later steps' entropy.

Shapes: n trials, T decisions.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import optax

from controller.losses import masked_mean, update_baseline
from controller.policies.lstm import Policy
from controller.spec import DecisionSpec
from controller.strategies.distinct import distinct
from controller.types import Proposal, Strategy

OVERSAMPLE = 8  # draws for each of the distinct candidates that `best` wants

# (log_prob [n], log_prob_old [n], advantage [n], valid [n]) -> float[], minimised
Surrogate = Callable[[jax.Array, jax.Array, jax.Array, jax.Array], jax.Array]


@flax.struct.dataclass
class PolicyState:
    """All that changes while a policy learns."""

    params: Any  # of the policy
    opt_state: Any
    baseline: jax.Array  # float32[]
    step: jax.Array  # int32[], updates with a valid trial
    trials: jax.Array  # int32[], valid ones so far


class Baseline(NamedTuple):
    """How the baseline moves.

    Attributes:
      decay: of the exponential moving average of the mean reward.
      first: whether the advantage uses the baseline after its update.
      init: where it starts; None for the mean reward of the first valid trials.
    """

    decay: float
    first: bool
    init: float | None

    def advantage(
        self, state: PolicyState, reward: jax.Array, valid: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Advantages float32[n], and the new baseline float32[]."""
        old = state.baseline
        if self.init is None:
            old = jnp.where(state.step == 0, masked_mean(reward, valid), old)
        new = update_baseline(old, reward, valid, decay=self.decay)
        return reward - (new if self.first else old), new


class Growth(NamedTuple):
    """A size that grows with the valid trials, and is not the policy's to choose.

    Zoph & Le 2017, section 4.1: two layers more every 1,600 samples.

    Attributes:
      samples: trials until the decision goes from one choice to the next.
      position: of the decision.
      last: its last choice, where it stays.
      length: T.
    """

    samples: int
    position: int
    last: int
    length: int

    def given(self, trials: jax.Array) -> jax.Array:
        """int32[T] for a `Policy`, after so many trials."""
        choice = jnp.minimum(trials // self.samples, self.last)
        return jnp.full(self.length, -1, jnp.int32).at[self.position].set(choice)

    def taken(self, decisions: jax.Array) -> jax.Array:
        """int32[n, T], of decisions that were proposed at any time."""
        return jnp.where(jnp.arange(self.length) == self.position, decisions, -1)


def growth(spec: DecisionSpec, samples: int) -> Growth | None:
    """Lets the decision of group "blocks" grow every so many trials; 0 for not.

    Raises:
      ValueError: on a negative number, or a spec without such a decision.
    """
    if samples < 0:
        raise ValueError(f"growth_samples is {samples}; it must be 0 or more")
    if not samples:
        return None
    if "blocks" not in spec.groups:
        raise ValueError(
            f"growth_samples is {samples}; that needs a space that decides how many "
            "layers there are, as nas_rl_cnn does by fewest"
        )
    (position,) = spec.groups["blocks"]
    return Growth(samples, position, spec.num_choices[position] - 1, spec.length)


def policy_gradient(
    policy: Policy,
    surrogate: Surrogate,
    *,
    learning_rate: float,
    baseline: Baseline,
    entropy_weight: float,
    skip_weight: float,
    clip_norm: float | None,
    adam_b1: float = 0.9,
    adam_epsilon: float = 1e-8,
    epochs: int = 1,
    growth: Growth | None = None,
) -> Strategy:
    """Builds a strategy that learns a policy.

    A trial with a reward that is not finite counts as invalid; where none is valid,
    parameters, optimiser and baseline stay.

    Args:
      policy: what is learnt.
      surrogate: loss whose gradient estimates that of the negative expected reward.
      learning_rate: of Adam.
      baseline: how it moves.
      entropy_weight: of the entropy bonus.
      skip_weight: of the prior on skips.
      clip_norm: largest global norm of a gradient; None for no limit.
      adam_b1: decay of Adam's first moment.
      adam_epsilon: Adam's epsilon.
      epochs: steps of Adam in an update.
      growth: of the decision that is not the policy's; None for none.

    Returns:
      a Strategy; its metrics are those of the policy that proposed.

    Raises:
      ValueError: on a number out of its range.
    """
    _check(
        learning_rate, baseline.decay, entropy_weight, skip_weight, clip_norm, epochs
    )
    _check_adam(adam_b1, adam_epsilon)
    clip = (
        optax.identity() if clip_norm is None else optax.clip_by_global_norm(clip_norm)
    )
    adam = optax.adam(learning_rate, b1=adam_b1, eps=adam_epsilon)
    optimizer = optax.chain(clip, adam)

    def init(key):
        params = policy.init(key)
        start = 0.0 if baseline.init is None else baseline.init
        return PolicyState(
            params,
            optimizer.init(params),
            jnp.float32(start),
            step=jnp.int32(0),
            trials=jnp.int32(0),
        )

    def given(state):
        return () if growth is None else (growth.given(state.trials),)

    def propose(key, state, n):
        decisions, log_prob = policy.sample(state.params, key, n, *given(state))
        return Proposal(decisions, log_prob), state

    def loss(params, proposal, advantage, valid):
        taken = () if growth is None else (growth.taken(proposal.decisions),)
        log_prob, entropy, skip_kl = policy.evaluate(params, proposal.decisions, *taken)
        policy_loss = surrogate(log_prob, proposal.log_prob, advantage, valid)
        entropy, skip_kl = masked_mean(entropy, valid), masked_mean(skip_kl, valid)
        total = policy_loss - entropy_weight * entropy + skip_weight * skip_kl
        terms = {"policy_loss": policy_loss, "entropy": entropy, "skip_kl": skip_kl}
        return total, {"loss": total, **terms}

    def update(key, state, trial):
        valid = trial.valid & jnp.isfinite(trial.reward)
        advantage, moved = baseline.advantage(state, trial.reward, valid)

        def epoch(carry, _):
            params, opt_state = carry
            gradient, terms = jax.grad(loss, has_aux=True)(
                params, trial.proposal, advantage, valid
            )
            updates, opt_state = optimizer.update(gradient, opt_state, params)
            return (optax.apply_updates(params, updates), opt_state), terms

        start = (state.params, state.opt_state)
        learnt, terms = jax.lax.scan(epoch, start, length=epochs)
        params, opt_state = jax.tree.map(
            lambda new, old: jnp.where(valid.any(), new, old), learnt, start
        )
        metrics = {name: value[0] for name, value in terms.items()}
        metrics |= {"advantage": masked_mean(advantage, valid), "baseline": moved}
        metrics = {k: v.astype(jnp.float32) for k, v in metrics.items()}
        step = state.step + valid.any()
        trials = state.trials + valid.sum()
        return PolicyState(params, opt_state, moved, step, trials), metrics

    def best(key, state, n):
        drawn, _ = policy.sample(state.params, key, OVERSAMPLE * n, *given(state))
        greedy = policy.greedy(state.params, *given(state))
        return distinct(jnp.vstack([greedy, drawn]), n)

    return Strategy(init, propose, update, best)


def _check(learning_rate, decay, entropy_weight, skip_weight, clip_norm, epochs):
    if not learning_rate > 0:
        raise ValueError(f"learning_rate is {learning_rate}; it must be positive")
    if not 0 <= decay <= 1:
        raise ValueError(f"baseline_decay is {decay}; it must lie in [0, 1]")
    for name, weight in (("entropy", entropy_weight), ("skip", skip_weight)):
        if not weight >= 0:
            raise ValueError(f"{name}_weight is {weight}; it must be 0 or more")
    if clip_norm is not None and not clip_norm > 0:
        raise ValueError(f"clip_norm is {clip_norm}; it must be positive, or none")
    if epochs < 1:
        raise ValueError(f"epochs is {epochs}; it must be 1 or more")


def _check_adam(b1, epsilon):
    if not 0 <= b1 < 1:
        raise ValueError(f"adam_b1 is {b1}; it must be in [0, 1)")
    if not epsilon > 0:
        raise ValueError(f"adam_epsilon is {epsilon}; it must be positive")
