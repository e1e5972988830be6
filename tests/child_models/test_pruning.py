"""What pruning saves: the multiply-adds that a relaxed supernet really runs.

Each convolution counts itself when it runs, so that a branch that is compiled and not
taken costs nothing.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import child_models.ops.layers as layers
from child_models.cost import count
from child_models.spaces import SPACES
from controller.strategies.differentiable.asap import asap
from controller.types import Trial

IMAGE = (6, 5, 1)  # of no other test, as traces are kept
SPACE = SPACES["nasbench201"](classes=3, channels=3, cells=1, nodes=3)
SPEC = SPACE.spec


@pytest.fixture
def run(monkeypatch, quick_jit):
    """``(architecture) -> int``, multiply-adds of one forward pass; compiled once."""
    total, report_macs = [], layers.report_macs

    def report(module, macs):
        report_macs(module, macs)
        if not module.is_initializing():
            jax.debug.callback(functools.partial(total.append, macs))

    monkeypatch.setattr(layers, "report_macs", report)
    module, x = SPACE.module("search"), jnp.zeros((2, *IMAGE))
    start = SPACE.bind(SPEC.sample(jax.random.key(0)))
    init = quick_jit(lambda key: module.init(key, start, x, True))
    variables = init(jax.random.key(1))

    traces = []

    @quick_jit
    def forward(architecture):
        traces.append(architecture)
        return module.apply(variables, SPACE.bind(architecture), x, True)

    def run(architecture):
        total.clear()
        forward(architecture).block_until_ready()
        jax.effects_barrier()
        return sum(total)

    run.programs = lambda: len(traces)
    yield run
    jax.clear_caches()  # traces that count


def test_asap_pays_for_what_is_left_alone(run, quick_jit):
    """Logits that do not move are pruned as the temperature falls."""
    strategy = asap(SPEC, temperature=1.0, decay=0.5, init_scale=1.0, weight_decay=0.0)
    state = strategy.init(jax.random.key(2))
    update = quick_jit(strategy.update)
    still = jax.tree.map(jnp.zeros_like, state.params)
    costs, alive = [], []
    for _ in range(8):
        proposal, _ = strategy.propose(jax.random.key(3), state, 1)
        costs.append(run(proposal.relaxed))
        alive.append(int(sum(jnp.sum(x) for x in proposal.relaxed["live"].values())))
        trial = Trial(proposal, jnp.zeros(1), jnp.ones(1, bool), gradient=still)
        state, _ = update(jax.random.key(4), state, trial)
    child = count(SPACE.module("search"), SPACE.bind(np.asarray(state.genotype)), IMAGE)
    assert alive[0] == 15 and alive[-1] == 3  # one op an edge
    assert costs[-1] == child.macs
    assert len(set(costs)) > 2 and costs == sorted(costs, reverse=True)
    assert run.programs() == 1
