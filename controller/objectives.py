"""What a search maximises where a cost counts beside the reward.

The rewards of MnasNet (Tan et al. 2019, https://arxiv.org/abs/1807.11626, eq. 2-4) and
TuNAS (Bender et al. 2020, https://arxiv.org/abs/2008.06120, section 4), the expected
cost of ProxylessNAS (Cai et al. 2019, https://arxiv.org/abs/1812.00332, eq. 7), and a
limit.  They are applied to trials and proposals, between evaluator and strategy, so
that every strategy has them.

A strategy of relaxed weights learns from gradients, so that the loss gets a term in
the expected cost E at the weights that were proposed.  It is minus the logarithm of the
weighted product, where exp(-loss) stands for the reward; and the absolute value and the
expected cost as they are.

Shapes: n architectures, T decisions.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from controller.execution import Executor, Outcome
from controller.graph_spec import stack, trim
from controller.types import Evaluator, Proposal, Strategy, Trial

NAMES = ("reward", "weighted_product", "absolute", "expected_cost")
COSTS = ("params", "macs", "latency")
FORMS = ("soft", "hard")
_MNASNET = {"soft": -0.07, "hard": -1.0}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Objective:
    """How the cost c of an architecture counts beside its reward r.

    Attributes:
      name: "reward": r, as the evaluator has it; "weighted_product": r (c / target)^w
        of MnasNet; "absolute": r + w |c / target - 1| of TuNAS; "expected_cost": r - w
        c / target, in expectation over a policy ProxylessNAS's.
      cost: c: "params" or "macs" of the final form at the data's images, or "latency",
        the sum of a table in milliseconds; trials keep it.  None for none.
      target: of the cost, in its unit.
      weight: w; by default that of the form.  It is 0 or less in a product and with the
        absolute value, 0 or more with the expected cost.
      form: of the weighted product: "soft": w on both sides of the target, -0.07 by
        default; "hard": w above the target only, -1 by default.
      limit: what costs more is drawn again; None for no limit.
      redraws: most of them for one proposal; what then is still above the limit is
        told to the strategy as a trial that is not valid.
      table: file of `launch.latency`, of this space at this size of images.
      device: on which the table was measured; None for the one that is here.
    """

    name: str = "reward"
    cost: str | None = None
    target: float | None = None
    weight: float | None = None
    form: str = "soft"
    limit: float | None = None
    redraws: int = 100
    table: str | None = None
    device: str | None = None

    def __post_init__(self):
        for key, known in (("name", NAMES), ("cost", (None, *COSTS)), ("form", FORMS)):
            if (value := getattr(self, key)) not in known:
                raise ValueError(
                    f"{key} is {value!r}; known: {', '.join(filter(None, known))}"
                )
        if self.name != "reward" and self.target is None:
            raise ValueError(f"target is missing; {self.name} needs one")
        for key in ("target", "limit"):
            value = getattr(self, key)
            if value is not None and not 0 < value < float("inf"):
                raise ValueError(f"{key} is {value}; it must be positive")
        if self.cost is None and (self.name != "reward" or self.limit is not None):
            raise ValueError(f"cost is missing; it must be one of {', '.join(COSTS)}")
        if self.redraws < 0:
            raise ValueError(f"redraws is {self.redraws}; it must be 0 or more")
        self._check_weight()
        if (self.cost == "latency") != (self.table is not None):
            raise ValueError(
                f"cost is {self.cost!r} and table {self.table!r}; a table belongs to "
                "the cost 'latency', and python -m launch.latency measures one"
            )

    def _check_weight(self):
        if self.name in ("absolute", "expected_cost") and self.weight is None:
            raise ValueError(f"weight is missing; {self.name} needs one")
        sign = 1 if self.name == "expected_cost" else -1
        if self.weight is not None and not sign * self.weight >= 0:
            side = "more" if sign > 0 else "less"
            raise ValueError(f"weight is {self.weight}; it must be 0 or {side}")

    @property
    def exponents(self) -> tuple[float, float]:
        """w up to the target, and above it."""
        weight = _MNASNET[self.form] if self.weight is None else self.weight
        return (0.0 if self.form == "hard" else weight), weight

    def reward(self, reward: Any, cost: Any) -> jax.Array:
        """float32[n], of rewards and costs float[n]."""
        reward, cost = jnp.asarray(reward), jnp.asarray(cost)
        if self.name == "reward":
            return reward
        ratio = cost / self.target
        if self.name == "weighted_product":
            below, above = self.exponents
            return reward * jnp.power(ratio, jnp.where(ratio <= 1, below, above))
        if self.name == "absolute":
            return reward + self.weight * jnp.abs(ratio - 1)
        return reward - self.weight * ratio

    def penalty(self, expected: jax.Array) -> jax.Array:
        """float32[], of the expected cost float32[]: the term of the loss."""
        ratio = expected / self.target
        if self.name == "weighted_product":
            below, above = self.exponents
            return -jnp.where(ratio <= 1, below, above) * jnp.log(ratio)
        if self.name == "absolute":
            return -self.weight * jnp.abs(ratio - 1)
        return self.weight * ratio


class Costs(NamedTuple):
    """The costs of a space's architectures, in the objective's unit.

    Attributes:
      count: ``(decisions) -> float``, on the host.
      traced: ``(int32[n, T]) -> float32[n]``; None where the host alone can count, as
        with the others.
      within: ``(int32[n, T], limit) -> bool[n]``, exactly.
      expected: ``(relaxed weights) -> float32[]``, differentiable.
    """

    count: Callable[[Sequence[int]], float]
    traced: Callable[[jax.Array], jax.Array] | None = None
    within: Callable[[jax.Array, float], jax.Array] | None = None
    expected: Callable[[Mapping[str, jax.Array]], jax.Array] | None = None


# ---- trials -------------------------------------------------------------------------


def judged_evaluator(
    evaluator: Evaluator, objective: Objective, costs: Costs
) -> Evaluator:
    """An evaluator whose trials have the objective as reward; for compiled searches.

    Trials' values are the plain rewards, and their cost the objective's, whatever the
    evaluator has there.

    Args:
      evaluator: of plain rewards.
      objective: of the search.
      costs: traceable.
    """

    def evaluate(key, state, data, proposal):
        state, trial = evaluator.evaluate(key, state, data, proposal)
        cost = costs.traced(proposal.decisions)
        fits = jnp.ones(cost.shape, bool)
        if objective.limit is not None:
            fits = costs.within(proposal.decisions, objective.limit)
        if trial.gradient is not None and objective.name != "reward":
            weights = proposal.relaxed["weights"]
            slopes = jax.grad(lambda w: objective.penalty(costs.expected(w)))(weights)
            trial = trial._replace(
                gradient=jax.tree.map(jnp.add, trial.gradient, slopes)
            )
        return state, _judged(objective, trial, cost, fits)

    limited = objective.limit is not None
    invalid = f"{evaluator.invalid}, or no draw was within the limit"
    return evaluator._replace(
        evaluate=evaluate, invalid=invalid if limited else evaluator.invalid
    )


def judged_executor(executor: Executor, objective: Objective, costs: Costs) -> Executor:
    """The same, of trials that the host collects; their costs are counted there."""

    def collect(state, ticket):
        state, (trial, reasons, worker) = executor.collect(state, ticket)
        rows = [trim(row) for row in np.asarray(trial.proposal.decisions)]
        cost = np.array([costs.count(row) for row in rows], np.float32)
        fits = np.array([_fits(objective, costs, row) for row in rows])
        judged = jax.device_get(_judged(objective, trial, cost, fits))
        reasons = [
            reason if ok else f"its cost {c:g} is above the limit"
            for reason, ok, c in zip(reasons, fits, cost.tolist(), strict=True)
        ]
        return state, Outcome(judged, reasons, worker)

    return executor._replace(collect=collect)


def _judged(objective: Objective, trial: Trial, cost, fits) -> Trial:
    reward = trial.reward
    if trial.gradient is None:
        reward = objective.reward(reward, cost).astype(jnp.float32)
    valid = trial.valid & fits
    return trial._replace(
        reward=jnp.where(valid, reward, 0),
        valid=valid,
        cost=cost[:, None],
        value=jnp.where(valid, trial.reward, jnp.nan),
    )


# ---- proposals ----------------------------------------------------------------------


def limited(strategy: Strategy, objective: Objective, costs: Costs) -> Strategy:
    """A strategy that draws again what costs more than the limit.

    Proposals are drawn one by one.  Where the strategy waits for the trials of what it
    proposed (`Strategy.queues`), it is told that those were not valid; else it proposes
    from the state in which it was.  Where the host alone can count, the host drives it.

    Args:
      strategy: whose proposals have no relaxed weights.
      objective: with a limit.
      costs: of the space.

    Raises:
      ValueError: on a strategy of relaxed weights.
    """
    if strategy.relaxed:
        raise ValueError(
            f"limit is {objective.limit}; this strategy proposes relaxed weights, of "
            "which nothing can be drawn again; take 'expected_cost', or another "
            "objective, without a limit"
        )
    traced = strategy.traceable and costs.within is not None
    if strategy.traceable and not traced:
        strategy = _on_host(strategy)

    def fits(decisions):
        if traced:
            return costs.within(decisions, objective.limit)[0]
        return _fits(objective, costs, trim(np.asarray(decisions)[0]))

    def drawn(state, key):
        """One proposal, and the state after it."""
        first_key, key = jax.random.split(key)
        proposal, new = strategy.propose(first_key, state, 1)

        def unfit(carry):
            i, proposal, _, _ = carry
            return (i < objective.redraws) & ~fits(proposal.decisions)

        def again(carry):
            i, proposal, new, before = carry
            tell_key, draw_key = jax.random.split(jax.random.fold_in(key, i))
            if strategy.queues:
                none = Trial(proposal, jnp.zeros(1), jnp.zeros(1, bool))
                before = strategy.update(tell_key, new, none)[0]
            proposal, new = strategy.propose(draw_key, before, 1)
            return i + 1, proposal, new, before

        loop = jax.lax.while_loop if traced else _while
        start = jnp.int32(0) if traced else 0
        _, proposal, new, _ = loop(unfit, again, (start, proposal, new, state))
        return new, proposal

    def propose(key, state, n):
        keys = jax.random.split(key, n)
        if traced:
            state, rows = jax.lax.scan(drawn, state, keys)
            return jax.tree.map(lambda x: x[:, 0], rows), state
        found = []
        for row_key in keys:
            state, proposal = drawn(state, row_key)
            found.append(proposal)
        return _joined(found), state

    return strategy._replace(propose=propose)


def _fits(objective: Objective, costs: Costs, decisions: Sequence[int]) -> np.bool_:
    return np.bool_(
        objective.limit is None or costs.count(decisions) <= objective.limit
    )


def _on_host(strategy: Strategy) -> Strategy:
    """The same, compiled function by function."""
    propose = jax.jit(strategy.propose, static_argnums=2)
    return strategy._replace(
        init=jax.jit(strategy.init),
        propose=propose,
        update=jax.jit(strategy.update),
        traceable=False,
    )


def _while(condition, body, carry):
    while condition(carry):
        carry = body(carry)
    return carry


def _joined(rows: Sequence[Proposal]) -> Proposal:
    """One proposal of several, on the host."""
    parents = [row.parent for row in rows]
    return Proposal(
        stack(np.asarray(row.decisions)[0] for row in rows),
        np.concatenate([np.asarray(row.log_prob) for row in rows]),
        parent=None if parents[0] is None else np.concatenate(parents),
    )
