"""An LSTM policy that decides autoregressively over any `DecisionSpec`.

Zoph & Le 2017, https://arxiv.org/abs/1611.01578, and ENAS, Pham et al. 2018,
https://arxiv.org/abs/1802.03268.  Step t sees an embedding of decision t - 1 and takes
decision t by one of three heads:

  no targets   logits W h + b, W and b of the group; the next input is an embedding of
               (group, choice)
  input        logits v . tanh(W1 anchor_j + W2 h) over the target nodes j; the next
               input is the chosen node's anchor
  skip         q as above for the one target j, logits (-q, q); the next input is j's
               anchor if it is skipped from, else a learned vector

The anchor of node j is the hidden state after its last decision; a cell's inputs have
learned ones.  Logits l are squashed to ``c tanh(l / temperature)``, and illegal choices
are masked.  Sampling and evaluation run the same step under one ``lax.scan`` over t, so
the time to compile does not grow with T.

Unlike ENAS, skips are taken one after another and see each other, the anchors of a
cell's inputs are learned, and the skip prior uses the probabilities that are sampled
from, softmax(-q, q), where ENAS's code puts sigmoid(q).

Shapes: n architectures, T decisions, V choices (padded), H hidden units, N nodes.
"""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from controller.spec import DecisionSpec
from controller.types import Key


class Evaluation(NamedTuple):
    """What a policy says of given architectures."""

    log_prob: jax.Array  # [n], sum over steps
    entropy: jax.Array  # [n], nats: of each step's distribution, summed over steps
    skip_kl: jax.Array  # [n], KL(skip probabilities || target): sum by node, mean of nodes


class Policy(NamedTuple):
    """A distribution over the architectures of a spec.

    Attributes:
      init: ``(key) -> params``.
      sample: ``(params, key, n) -> (int32[n, T], log_prob [n])``; the key is consumed.
      evaluate: ``(params, int32[n, T]) -> Evaluation``; illegal decisions have
        log_prob -inf.
      greedy: ``(params) -> int32[T]``, the most probable choice of each step in turn.
    """

    init: Callable[[Key], Any]
    sample: Callable[[Any, Key, int], tuple[jax.Array, jax.Array]]
    evaluate: Callable[[Any, jax.Array], Evaluation]
    greedy: Callable[[Any], jax.Array]


def lstm_policy(
    spec: DecisionSpec,
    *,
    hidden: int = 100,
    layers: int = 1,
    tanh_constant: float | None = None,
    op_tanh_reduce: float = 1.0,
    temperature: float = 1.0,
    op_bias: Mapping[str, float] | Sequence[float] | None = None,
    skip_target: float = 0.4,
    init_scale: float = 0.1,
    dtype: str = "float32",
) -> Policy:
    """Builds the policy.

    Args:
      spec: what it decides; see `Decision.node` and `Decision.targets`.
      hidden: units of each layer, H; NASNet has 100, ENAS 64.
      layers: stacked LSTM layers.
      tanh_constant: c, the largest |logit|, or None for no squashing; ENAS has 1.1 in
        the micro space and 1.5 in the macro space.
      op_tanh_reduce: c is divided by it in decisions without targets; ENAS has 2.5 in
        the micro space.
      temperature: logits are divided by it first.
      op_bias: initial bias of the logits of group "op", by name of the choice (0 where
        not named) or one a choice; ENAS has (10, 10, 0, 0, 0) in the micro space.
      skip_target: prior probability of a skip.
      init_scale: weights start uniform in (-init_scale, init_scale), LSTM biases at 0.
      dtype: of parameters and computation; "float64" needs ``jax_enable_x64``.

    Returns:
      a Policy; its functions are traceable.

    Raises:
      ValueError: on a number out of range, an op bias that does not fit the spec, or a
        target that no earlier decision builds.
    """
    _check_positive(
        hidden=hidden,
        layers=layers,
        tanh_constant=1.0 if tanh_constant is None else tanh_constant,
        op_tanh_reduce=op_tanh_reduce,
        temperature=temperature,
        init_scale=init_scale,
    )
    if not 0 < skip_target < 1:
        raise ValueError(f"skip_target is {skip_target}; it must lie in (0, 1)")
    layout = _layout(spec)
    rows = _rows(spec, layout, tanh_constant or 1.0, op_tanh_reduce, skip_target, dtype)
    network = _Network(
        layout=layout,
        width=spec.max_choices,
        bias=_head_bias(spec, layout, op_bias),
        hidden=hidden,
        layers=layers,
        temperature=temperature,
        squash=tanh_constant is not None,
        init_scale=init_scale,
        dtype=jnp.dtype(dtype),
    )

    def init(key):
        first = jax.tree.map(lambda leaf: leaf[0], rows)
        mask = jnp.ones(spec.max_choices, bool)
        start = network.init(key, method="start")
        return network.init(key, network.apply(start, method="start"), first, mask, jnp.argmax)[
            "params"
        ]

    def rollout(params, pick, draws):
        """Decides once: T steps of (choice, log_prob, entropy, skip_kl)."""
        variables = {"params": params}

        def step(carry, inputs):
            state, prefix = carry
            t, row, draw = inputs
            mask = spec.legal(prefix, t)
            state, out = network.apply(
                variables, state, row, mask, lambda logits: pick(logits, draw)
            )
            return (state, prefix.at[t].set(out[0])), out

        steps = jnp.arange(spec.length)
        start = network.apply(variables, method="start")
        prefix = jnp.zeros(spec.length, jnp.int32)
        return jax.lax.scan(step, (start, prefix), (steps, rows, draws))[1]

    def sample(params, key, n):
        keys = jax.random.split(key, (n, spec.length))
        draw = lambda logits, key: jax.random.categorical(key, logits)
        decisions, log_prob, _, _ = jax.vmap(lambda k: rollout(params, draw, k))(keys)
        return decisions, jnp.sum(log_prob, axis=1)

    def evaluate(params, decisions):
        given = lambda logits, decision: decision
        steps = jax.vmap(lambda d: rollout(params, given, d))(jnp.asarray(decisions))
        return Evaluation(*(jnp.sum(value, axis=1) for value in steps[1:]))

    def greedy(params):
        return rollout(params, lambda logits, _: jnp.argmax(logits), None)[0]

    return Policy(init, sample, evaluate, greedy)
