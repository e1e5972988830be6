"""An LSTM policy that decides autoregressively over any `DecisionSpec`.

Zoph & Le 2017, https://arxiv.org/abs/1611.01578, and ENAS, Pham et al. 2018,
https://arxiv.org/abs/1802.03268.  Step t sees what decision t - 1 left as input, and
takes decision t by one of three heads:

  no targets  logits W h + b of the group; the next input is an embedding of (group,
              choice)
  input       logits v . tanh(W1 anchor_j + W2 h) over the target nodes j; the next
              input is the chosen node's anchor
  skip        q as above for the one target j, logits (-q, q); the next input is the
              anchor of j if it is skipped from, else a learned vector

The anchor of node j is the first hidden state that has seen all of its decisions; a
cell's inputs have learned ones.  Logits l are squashed to c tanh(l / temperature) and
then masked by legality.  Sampling and evaluation run the same step, in one ``lax.scan``
over t, so the time to compile does not grow with T.

Unlike in ENAS's code, a micro node's decisions come as input, op, input, op; skips of
one node are taken in turn and see each other; and the prior of skips is on the
probabilities that they are sampled with, softmax(-q, q), and not on sigmoid(-q, q).

Shapes: n architectures, T decisions, V choices (padded), H hidden units, M cell inputs,
N nodes.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jax.flatten_util import ravel_pytree

from controller.options import build
from controller.policies.tables import Rows, Tables, choice_bias, tables
from controller.spec import DecisionSpec
from controller.types import Key


class Evaluation(NamedTuple):
    """What a policy says of given architectures."""

    log_prob: jax.Array  # [n], sum of the steps'
    entropy: jax.Array  # [n], nats; sum over steps of that of the step's distribution
    skip_kl: jax.Array  # [n], KL(p || target): sum over a node's skips, mean over nodes


class Policy(NamedTuple):
    """A distribution over the architectures of a spec.

    `lstm_policy` takes `given` too: where it is not -1, it is the decision's value; the
    policy does not choose it, and its log_prob and entropy are 0.

    Attributes:
      init: ``(key) -> params``.
      sample: ``(params, key, n, given=None) -> (int32[n, T], log_prob [n])``; the key
        is consumed, given is int32[T].
      evaluate: ``(params, int32[n, T], given=None) -> Evaluation``; illegal decisions
        have log_prob -inf; given is int32[n, T].
      greedy: ``(params, given=None) -> int32[T]``, each step's most probable choice, in
        turn.
    """

    init: Callable[[Key], Any]
    sample: Callable[..., tuple[jax.Array, jax.Array]]
    evaluate: Callable[..., Evaluation]
    greedy: Callable[..., jax.Array]


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
      layers: LSTM layers, stacked.
      tanh_constant: c, the largest |logit|; None for no tanh.  ENAS has 1.1 in the
        micro space and 1.5 in the macro space.
      op_tanh_reduce: c is divided by it in decisions without targets; 2.5 in ENAS's
        micro space.
      temperature: logits are divided by it, before the tanh.
      op_bias: initial bias of the logits of group "op": by name of the choice (0 where
        not named), or one value a choice; (10, 10, 0, 0, 0) in ENAS's micro space.
      skip_target: prior probability of a skip.
      init_scale: weights start uniform in (-init_scale, init_scale), LSTM biases at 0.
      dtype: of parameters and computation; "float64" needs ``jax_enable_x64``.

    Returns:
      a Policy of traceable functions.

    Raises:
      ValueError: on a number out of range, an op bias that does not fit the spec, or a
        target that no earlier decision builds.
    """
    positive = {
        "hidden": hidden,
        "layers": layers,
        "op_tanh_reduce": op_tanh_reduce,
        "temperature": temperature,
        "init_scale": init_scale,
    }
    if tanh_constant is not None:
        positive["tanh_constant"] = tanh_constant
    for name, value in positive.items():
        if not value > 0:
            raise ValueError(f"{name} is {value}; it must be positive")
    if not 0 < skip_target < 1:
        raise ValueError(f"skip_target is {skip_target}; it must lie in (0, 1)")
    static = tables(spec)
    bias = np.zeros((len(static.linear_groups), spec.max_choices))
    if op_bias is not None:
        bias[static.linear_groups.index("op")] = choice_bias(spec, "op", op_bias)
    constants = None
    if tanh_constant is not None:
        constants = (tanh_constant / op_tanh_reduce, tanh_constant)
    network = _Network(
        static=static,
        width=spec.max_choices,
        bias=tuple(map(tuple, bias.tolist())),
        hidden=hidden,
        layers=layers,
        constants=constants,
        temperature=temperature,
        skip_target=skip_target,
        dtype=jnp.dtype(dtype),
    )
    return _policy(spec, static.rows, network, init_scale)


def policy_from_options(
    spec: DecisionSpec, options: Mapping[str, Any] | None
) -> Policy:
    """`lstm_policy` with arguments of a config.

    Raises:
      ValueError: on an unknown argument, with the known ones; and as `lstm_policy`.
    """
    return build("policy", lstm_policy, spec, options)


def _policy(
    spec: DecisionSpec, rows: Rows, network: "_Network", init_scale: float
) -> Policy:
    def init(key):
        first = jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), rows)
        mask = jnp.ones(spec.max_choices, bool)
        params = network.init(key, first, mask, method="first_step")["params"]
        return _draw_weights(key, params, init_scale)

    def rollout(params, pick, draws, given):
        """Takes all decisions of one architecture.

        Args:
          params: of the network.
          pick: ``(logits [V], draw) -> choice``.
          draws: what `pick` gets, with a leading axis T.
          given: int32[T], or None.

        Returns:
          int32[T] and an Evaluation of arrays [T].
        """
        variables = {"params": jax.tree.map(jnp.asarray, params)}

        def step(carry, inputs):
            state, prefix = carry
            t, row, draw = inputs
            legal = spec.legal(prefix, t)
            if given is not None:
                legal &= (given[t] < 0) | (jnp.arange(spec.max_choices) == given[t])
            state, choice, evaluation = network.apply(
                variables, state, row, legal, lambda logits: pick(logits, draw)
            )
            return (state, prefix.at[t].set(choice)), (choice, evaluation)

        start = network.apply(variables, method="start")
        prefix = jnp.zeros(spec.length, jnp.int32)
        inputs = (jnp.arange(spec.length), rows, draws)
        return jax.lax.scan(step, (start, prefix), inputs)[1]

    def sample(params, key, n, given=None):
        def draw(logits, key):
            return jax.random.categorical(key, logits)

        keys = jax.random.split(key, (n, spec.length))
        decisions, steps = jax.vmap(lambda keys: rollout(params, draw, keys, given))(
            keys
        )
        return decisions, jnp.sum(steps.log_prob, axis=1)

    def evaluate(params, decisions, given=None):
        def same(logits, decision):
            return decision

        rows = jnp.asarray(decisions, jnp.int32)
        _, steps = jax.vmap(lambda *row: rollout(params, same, *row))(rows, given)
        return Evaluation(*(jnp.sum(value, axis=1) for value in steps))

    def greedy(params, given=None):
        return rollout(params, lambda logits, _: jnp.argmax(logits), None, given)[0]

    return Policy(init, sample, evaluate, greedy)


def _draw_weights(key, params, scale):
    """Draws all but biases uniformly; at once, as each draw is slow to compile."""
    flat = traverse_util.flatten_dict(params)
    weights = {k: v for k, v in flat.items() if not k[-1].endswith("bias")}
    values, unravel = ravel_pytree(weights)
    drawn = jax.random.uniform(key, values.shape, values.dtype, -scale, scale)
    return traverse_util.unflatten_dict(flat | unravel(drawn))


class _Network(nn.Module):
    """One step of the policy; its attributes are as the arguments of `lstm_policy`.

    Weights start at 0, to be drawn by `_draw_weights`.
    """

    static: Tables
    width: int  # V
    bias: tuple[tuple[float, ...], ...]  # initial, by linear group and choice
    hidden: int
    layers: int
    constants: tuple[float, float] | None  # of the tanh: without targets, with targets
    temperature: float
    skip_target: float
    dtype: Any

    def setup(self):
        zeros, dtype = nn.initializers.zeros, self.dtype
        size, width = self.hidden, self.width
        linear = len(self.static.linear_groups)
        attention = len(self.static.attention_groups)
        self.cells = [
            nn.OptimizedLSTMCell(
                size,
                kernel_init=zeros,
                recurrent_kernel_init=zeros,
                dtype=dtype,
                param_dtype=dtype,
            )
            for _ in range(self.layers)
        ]

        def weights(name, *shape):
            return self.param(name, zeros, shape, dtype)

        # The first input, what follows a skip not taken, and M anchors.
        self.learned = weights("learned", 2 + self.static.inputs, size)
        if linear:
            self.head = weights("head", linear, size, width)
            self.head_bias = self.param(
                "head_bias", lambda key: jnp.array(self.bias, dtype)
            )
            self.embedding = weights("embedding", linear, width, size)
        if attention:
            self.attention = weights("attention", attention, 2, size, size)
            self.attention_out = weights("attention_out", attention, size)

    def first_step(self, row: Rows, mask: jax.Array):
        """Touches every parameter."""
        return self(self.start(), row, mask, jnp.argmax)

    def start(self):
        """LSTM states (c, h) by layer, the first input [H], anchors [M + N + 1, H]."""
        zeros = jnp.zeros(self.hidden, self.dtype)
        nodes = jnp.zeros((self.static.nodes + 1, self.hidden), self.dtype)
        anchors = jnp.concatenate([self.learned[2:], nodes])
        return [(zeros, zeros)] * self.layers, self.learned[0], anchors

    def __call__(self, state, row: Rows, mask: jax.Array, pick):
        """Takes one decision.

        Args:
          state: as `start`.
          row: of this step.
          mask: bool[V], legal choices.
          pick: ``(logits [V]) -> choice``.

        Returns:
          the next state, int32[], and an Evaluation of scalars.
        """
        cells, x, anchors = state
        new_cells = []
        for cell, carry in zip(self.cells, cells, strict=True):
            carry, x = cell(carry, x)
            new_cells.append(carry)
        anchors = anchors.at[row.built].set(x)
        logits = jnp.where(mask, self._logits(x, anchors, row), -jnp.inf)
        choice = pick(logits).astype(jnp.int32)
        state = new_cells, self._next_input(anchors, row, choice), anchors
        return state, choice, self._evaluate(logits, mask, row, choice)

    def _logits(self, h, anchors, row):
        logits = jnp.zeros(self.width, self.dtype)
        if self.static.linear_groups:
            logits = h @ self.head[row.head] + self.head_bias[row.head]
        if self.static.attention_groups:
            of_anchor, of_state = self.attention[row.head]
            query = h @ of_state
            keys = anchors[row.targets] @ of_anchor  # [V, H]
            scores = jnp.tanh(keys + query[None]) @ self.attention_out[row.head]
            # A skip names its node twice: both scores are q.
            no = row.skip & (jnp.arange(self.width) == 0)
            logits = jnp.where(row.attends, jnp.where(no, -scores, scores), logits)
        logits = logits / self.temperature
        if self.constants is None:
            return logits
        linear, attention = self.constants
        constant = jnp.where(row.attends, attention, linear).astype(self.dtype)
        return constant * jnp.tanh(logits)

    def _next_input(self, anchors, row, choice):
        x = self.learned[0]
        if self.static.linear_groups:
            x = self.embedding[row.head, choice]
        if self.static.attention_groups:
            skipped = row.skip & (choice == 0)
            chosen = jnp.where(skipped, self.learned[1], anchors[row.targets[choice]])
            x = jnp.where(row.attends, chosen, x)
        return x

    def _evaluate(self, logits, mask, row, choice):
        log_probs = jax.nn.log_softmax(logits)
        finite = jnp.where(mask, log_probs, 0)  # 0 log 0 = 0, and no NaN in gradients
        probs = jnp.where(mask, jnp.exp(log_probs), 0)
        prior = [math.log(1 - self.skip_target), math.log(self.skip_target)]
        prior = jnp.array(prior + [0.0] * self.width, self.dtype)[: self.width]
        weight = row.skip_weight.astype(self.dtype)
        return Evaluation(
            log_prob=log_probs[choice],
            entropy=-jnp.sum(probs * finite),
            skip_kl=weight * jnp.sum(probs * (finite - prior)),
        )
