"""A policy of independent categorical distributions, one a decision.

A decision's logits are masked by what its prefix allows, and added to the logarithm of
the rule's prior: with equal logits architectures are drawn as by `DecisionSpec.sample`.

Shapes: n architectures, T decisions, V choices (padded).
"""

import jax
import jax.numpy as jnp

from controller.policies.lstm import Evaluation, Policy
from controller.spec import DecisionSpec


def categorical_policy(spec: DecisionSpec, *, init_scale: float = 1e-3) -> Policy:
    """Builds the policy; its parameters are logits float32[T, V].

    Args:
      spec: what it decides.
      init_scale: standard deviation of the first logits.

    Returns:
      a Policy of traceable functions.
    """
    steps = jnp.arange(spec.length)
    shape = (spec.length, spec.max_choices)

    def masked(logits, prefix, t):
        row = logits[t]
        if spec.rule is not None:
            row = row + jnp.log(spec.rule.prior(spec, prefix, t))
        return jax.nn.log_softmax(jnp.where(spec.legal(prefix, t), row, -jnp.inf))

    def walk(logits, choose):
        def step(prefix, t):
            log_probs = masked(logits, prefix, t)
            choice = choose(log_probs, t).astype(jnp.int32)
            return prefix.at[t].set(choice), log_probs[choice]

        start = jnp.zeros(spec.length, jnp.int32)
        decisions, log_probs = jax.lax.scan(step, start, steps)
        return decisions, log_probs.sum()

    def sample(logits, key, n):
        def one(key):
            keys = jax.random.split(key, spec.length)
            return walk(logits, lambda row, t: jax.random.categorical(keys[t], row))

        return jax.vmap(one)(jax.random.split(key, n))

    def evaluate_one(logits, decisions):
        rows = jax.vmap(lambda t: masked(logits, decisions, t))(steps)
        taken = jnp.take_along_axis(rows, decisions[:, None], axis=1)
        # A choice of probability 0 has no part in the entropy, nor in its gradient.
        finite = jnp.where(jnp.isfinite(rows), rows, 0)
        entropy = -jnp.sum(jnp.exp(finite) * finite)
        return Evaluation(taken.sum(), entropy, jnp.float32(0))

    def greedy(logits):
        return walk(logits, lambda row, t: jnp.argmax(row))[0]

    return Policy(
        init=lambda key: init_scale * jax.random.normal(key, shape),
        sample=sample,
        evaluate=jax.vmap(evaluate_one, (None, 0)),
        greedy=greedy,
    )
