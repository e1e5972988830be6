"""A policy by which nodes draw their inputs, and each input draws its op.

For specs whose decisions are edges, of which a rule lets K of each node be present, as
in DARTS's space.  K inputs are drawn from the node's categorical pi, none of them
twice, and the op of each from a categorical of that edge:

    p(set S of inputs) = prod_S pi / (sum over sets of K of the same product),
    p(node) = p(S) prod_(e in S) p_e(op of e).

What is drawn is legal; with equal logits all architectures are equally likely.

Shapes: n architectures, T decisions (edges), V choices, N nodes, P sets of inputs that
a node may have (padded), K inputs in each.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from controller.policies.lstm import Evaluation, Policy
from controller.spec import DecisionSpec


def decides_presence(spec: DecisionSpec) -> bool:
    """Whether the rule says how many edges of a node are present."""
    return hasattr(spec.rule, "none") and hasattr(spec.rule, "inputs")


def input_policy(spec: DecisionSpec, *, init_scale: float = 1e-3) -> Policy:
    """Builds the policy; its parameters are logits of the inputs and of the ops.

    Its entropy is that of the whole distribution, the same for all architectures.

    Args:
      spec: what it decides; its rule has `none`, the choice of an absent edge, and
        `inputs`, K.
      init_scale: standard deviation of the first logits.

    Returns:
      a Policy of traceable functions; "inputs" float32[T], "ops" float32[T, V].
    """
    none, edges = spec.rule.none, jnp.arange(spec.length)
    is_op = jnp.arange(spec.max_choices) != none
    table, exists = map(jnp.asarray, _sets(spec, spec.rule.inputs))
    nodes = jnp.arange(len(table))

    def init(key):
        inputs_key, ops_key = jax.random.split(key)
        shape = (spec.length, spec.max_choices)
        return {
            "inputs": init_scale * jax.random.normal(inputs_key, shape[:1]),
            "ops": init_scale * jax.random.normal(ops_key, shape),
        }

    def parts(params):
        """Log probabilities of the sets [N, P] and of the ops [T, V]."""
        scores = params["inputs"][table].sum(axis=-1)
        sets = jax.nn.log_softmax(jnp.where(exists, scores, -jnp.inf), axis=1)
        ops = jnp.where(is_op[None], params["ops"], -jnp.inf)
        return sets, jax.nn.log_softmax(ops, axis=1)

    def built(taken, ops):
        """Decisions of the sets taken, int32[N], and of an op for every edge."""
        present = jnp.zeros(spec.length, bool).at[table[nodes, taken]].set(True)
        return jnp.where(present, ops, none).astype(jnp.int32)

    def log_prob(sets, ops, decisions):
        present = decisions != none
        taken = exists & jnp.all(present[table], axis=-1)
        of_ops = jnp.where(present, ops[edges, decisions], 0).sum()
        return jnp.where(taken, sets, 0).sum() + of_ops

    def sample(params, key, n):
        sets, ops = parts(params)

        def one(key):
            sets_key, ops_key = jax.random.split(key)
            taken = jax.random.categorical(sets_key, sets)
            decisions = built(taken, jax.random.categorical(ops_key, ops))
            return decisions, log_prob(sets, ops, decisions)

        return jax.vmap(one)(jax.random.split(key, n))

    def evaluate(params, decisions):
        sets, ops = parts(params)
        chances = jnp.exp(sets)  # 0 for a set that does not exist
        presence = jnp.zeros(spec.length).at[table].add(chances[..., None])
        entropy = _entropy(sets).sum() + jnp.sum(presence * _entropy(ops))
        log_probs = jax.vmap(lambda row: log_prob(sets, ops, row))(decisions)
        zero = jnp.zeros(len(decisions))
        return Evaluation(log_probs, zero + entropy, zero)

    def greedy(params):
        """The most probable architecture, exactly."""
        sets, ops = parts(params)
        best = ops.max(axis=1)[table].sum(axis=-1)
        return built(jnp.argmax(sets + best, axis=1), jnp.argmax(ops, axis=1))

    return Policy(init=init, sample=sample, evaluate=evaluate, greedy=greedy)


def _sets(spec: DecisionSpec, inputs: int) -> tuple[np.ndarray, np.ndarray]:
    """The sets of edges of each node int[N, P, K], and which of them exist."""
    members: dict[int, list[int]] = {}
    for t, decision in enumerate(spec.decisions):
        members.setdefault(decision.node, []).append(t)
    sets = [list(itertools.combinations(node, inputs)) for node in members.values()]
    most = max(map(len, sets))
    exists = np.arange(most) < np.array([[len(of_node)] for of_node in sets])
    padded = [of_node + of_node[:1] * (most - len(of_node)) for of_node in sets]
    return np.array(padded), exists


def _entropy(log_probs: jax.Array) -> jax.Array:
    """Of each row, in nats; what cannot be has no part in it, nor in its gradient."""
    finite = jnp.where(jnp.isfinite(log_probs), log_probs, 0)
    return -jnp.sum(jnp.where(jnp.isfinite(log_probs), jnp.exp(finite), 0) * finite, -1)
