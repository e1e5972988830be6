"""A search on several devices: what one device returns, and what crosses them.

The devices are simulated, which must be asked for before JAX starts; so this file is
also the program that the tests run.  Its network is a stem and two choices.
"""

import functools
import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree
from jax.sharding import Mesh, PartitionSpec

from child_models.choice import bind_all, choose
from child_models.data.batches import Batches
from child_models.evaluators.relaxed import relaxed
from child_models.evaluators.shared_weights import shared_weights
from child_models.ops.layers import Conv, Dense, Identity, ReLUConvBN, Zero
from child_models.ops.normalization import BatchNorm
from child_models.optimizer import sgd
from child_models.tasks.classification import classification
from child_models.types import Dataset, Space, Split
from controller.loop import make_loop, schedule
from controller.spec import Decision, DecisionSpec
from controller.strategies.differentiable.darts import darts
from controller.types import Proposal, Strategy

ROOT = Path(__file__).parents[3]
COUNTS = (1, 2, 4, 8)
BATCH, TRAIN = 8, 24
TASK = classification(classes=3)
# One architecture a device; the 3x3 convolution of the second edge is in none.
OPS = ("none", "skip", "conv1", "conv3")
ROWS = ((2, 0), (3, 1), (1, 2), (0, 0))
SGD = {"momentum": 0.9, "weight_decay": 1e-4, "clip_norm": 0.5, "unsampled": "frozen"}


@pytest.fixture(scope="module")
def found():
    """What the program below found, by number of devices."""
    flags = f"--xla_force_host_platform_device_count={max(COUNTS)}"
    flags += " --xla_backend_optimization_level=0"  # compiles in half the time
    done = subprocess.run(
        [sys.executable, __file__],
        env=os.environ | {"XLA_FLAGS": flags, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


# ---- one architecture a step --------------------------------------------------------


@pytest.mark.parametrize("count", COUNTS[1:])
def test_several_devices_return_what_one_does(found, count):
    one, many = (found["search"][str(n)] for n in (1, count))
    assert many["devices"] == count
    assert all(one["policy"]) and one["loss"][0] != one["loss"][1]
    for name in ("loss", "reward", "policy"):
        assert many[name] == pytest.approx(one[name], rel=1e-5, abs=1e-7), name


def test_a_relaxed_search_on_two_devices_is_that_on_one(found):
    one, two = (found["relaxed"][str(n)] for n in (1, 2))
    assert two["devices"] == 2 and {k for k, _ in two["collectives"]} == {"all-reduce"}
    for name in ("loss", "reward", "policy"):
        assert two[name] == pytest.approx(one[name], rel=1e-4, abs=1e-6), name


def test_only_gradients_statistics_and_rewards_cross_devices(found):
    search = found["search"]
    assert not search["1"]["collectives"]
    for count in COUNTS[1:]:
        collectives = search[str(count)]["collectives"]
        assert {kind for kind, _ in collectives} == {"all-reduce"}
        assert max(size for _, size in collectives) <= found["largest_parameter"]


def test_a_batch_that_does_not_split_is_refused(found):
    assert "batch_size is 6; it must be a multiple of the 4 devices" in found["refused"]


# ---- an architecture a device -------------------------------------------------------


@pytest.mark.parametrize("count", (2, 4))
def test_a_step_takes_the_mean_gradient_of_an_architecture_a_device(found, count):
    step = found["per_device"][str(count)]
    assert step["proposed"] == count
    assert step["error"] < 1e-5 < 1e-3 < step["step"]
    assert step["metrics"] == pytest.approx(step["expected_metrics"], rel=1e-5)


@pytest.mark.parametrize("count", (2, 4))
def test_the_architectures_differ_between_devices(found, count):
    sampled = {
        f"edge_{edge}/branch_{op}"
        for row in ROWS[:count]
        for edge, op in enumerate(row)
        if OPS[op].startswith("conv")
    }
    assert len(sampled) > 1
    assert set(found["per_device"][str(count)]["trained"]) == sampled


@pytest.mark.parametrize("count", (2, 4))
def test_no_collective_is_inside_a_branch(found, count):
    # The last part of the program shows that one would be found.
    assert found["collectives_in_a_branch"] > 0
    step = found["per_device"][str(count)]
    assert step["conditionals"] > 0
    assert step["collectives_in_branches"] == []
    assert {kind for kind, _ in step["collectives"]} == {"all-reduce"}
    largest = max(size for _, size in step["collectives"])
    assert largest <= found["largest_parameter"]


@pytest.mark.parametrize("count", (2, 4))
def test_the_architecture_that_failed_is_reported(found, count):
    failed = found["per_device"][str(count)]["failed"]
    assert np.isnan(failed["loss"])
    assert failed["decisions"] == list(ROWS[1])


def test_a_search_runs_with_an_architecture_a_device(found):
    joint, own = found["search"]["2"], found["search"]["per_device"]
    assert np.isfinite(own["loss"] + own["reward"]).all()
    assert own["loss"] != pytest.approx(joint["loss"], rel=1e-3)


# ---- the program --------------------------------------------------------------------


class Network(nn.Module):
    """A stem, two edges, a classifier."""

    @nn.compact
    def __call__(self, choices, x, train=True):
        conv = functools.partial(ReLUConvBN, 4, train)
        branches = (Zero, Identity, conv, functools.partial(conv, kernel=(3, 3)))
        x = BatchNorm(train)(Conv(4)(x))
        for i, choice in enumerate(choices):
            x = x + choose(choice, branches, x, name=f"edge_{i}")
        return Dense(3)(nn.relu(x).mean((1, 2)))


SPEC = DecisionSpec((Decision("first", OPS), Decision("second", OPS)))
SPACE = Space(
    SPEC,
    lambda form: Network(),
    functools.partial(bind_all, SPEC),
    lambda variables, decisions: variables,
    frozenset({"sampled", "relaxed"}),
)


def random_dataset() -> Dataset:
    generator = np.random.default_rng(0)

    def split(n):
        images = generator.integers(0, 256, (n, 8, 8, 1), dtype=np.uint8)
        return Split(images, generator.integers(0, 3, n).astype(np.int32))

    mean, std = np.array([0.5], np.float32), np.array([0.3], np.float32)
    return Dataset("random", split(TRAIN), split(16), split(4), 3, mean, std)


DATASET = random_dataset()


def make_mesh(count):
    return Mesh(np.array(jax.devices()[:count]), ("data",))


def make_evaluator(count, **options):
    sizes = {"batch_size": BATCH, "reward_batch_size": BATCH}
    options = sizes | {"reward": "negative_loss"} | options
    return shared_weights(SPACE, TASK, DATASET, mesh=make_mesh(count), **options)


def tabular() -> Strategy:
    """REINFORCE on a table of logits, which compiles sooner than an LSTM."""

    def log_prob(logits, decisions):
        taken = jax.nn.one_hot(decisions, len(OPS)) * jax.nn.log_softmax(logits)[None]
        return taken.sum((1, 2))

    def propose(key, logits, n):
        decisions = jax.random.categorical(key, logits, shape=(n, SPEC.length))
        return Proposal(decisions, log_prob(logits, decisions)), logits

    def update(key, logits, trial):
        def objective(logits):
            return (log_prob(logits, trial.proposal.decisions) * trial.reward).sum()

        return logits + jax.grad(objective)(logits), {}

    def best(key, logits, n):
        return jnp.tile(logits.argmax(1), (n, 1))

    return Strategy(
        lambda key: jnp.zeros((SPEC.length, len(OPS))), propose, update, best
    )


def make_relaxed(count):
    """To second order, of which the first is a part."""
    sizes = {"batch_size": BATCH, "reward_batch_size": BATCH}
    options = {"reward": "negative_loss", "hypergradient": "finite_difference"}
    return relaxed(SPACE, TASK, DATASET, mesh=make_mesh(count), **sizes, **options)


def compile_search(evaluator) -> tuple:
    """A loop of 2 weight steps and a policy step, its first state, its program."""
    strategy = darts(SPEC) if evaluator.gradients else tabular()
    samples = 1 if strategy.relaxed else 2
    phases = schedule(rounds=1, child_steps=2, policy_steps=1, samples=samples)
    loop = make_loop(SPEC, strategy, evaluator, phases, max_ticks=3)
    state = loop.init(jax.random.key(0))
    return loop, state, loop.compiled_text(state)


def run_search(loop, state, text) -> dict:
    state, log = loop.run(state, 3)
    policy = getattr(state.strategy, "params", state.strategy)
    return {
        "devices": len(log.reward.sharding.device_set),
        "loss": np.asarray(log.child["loss"])[:2].tolist(),
        "reward": np.asarray(log.reward)[2].tolist(),
        "policy": ravel_pytree(policy)[0].tolist(),
        "collectives": collectives(text),
    }


def step_per_device(count: int) -> dict:
    """One weight step on `ROWS`, what it should be, and one that fails."""
    evaluator = make_evaluator(count, architectures_per_step="per_device", **SGD)
    proposed = []

    def propose(key, n):
        proposed.append(n)
        return Proposal(jnp.array(ROWS[:n]), jnp.zeros(n))

    def improve(key, state, data):
        return evaluator.improve(key, state, data, propose)

    key, data = jax.random.key(1), evaluator.data
    state = jax.jit(evaluator.init)(jax.random.key(0), data)
    compiled = jax.jit(improve).lower(key, state, data).compile()
    new, metrics = jax.device_get(compiled(key, state, data))
    old = jax.device_get(state.params)
    indices, _ = Batches(TRAIN, BATCH).next(state.train)
    expected, expected_metrics = mean_step(old, np.split(np.asarray(indices), count))

    weights = old | {"edge_0": poisoned(old["edge_0"], "branch_3")}
    weights = jax.tree.map(
        lambda a, b: jax.device_put(a, b.sharding), weights, state.params
    )
    _, failed = jax.device_get(compiled(key, state.replace(params=weights), data))
    return {
        "proposed": proposed[-1],
        "error": largest_difference(new.params, expected),
        "step": largest_difference(new.params, old),
        "metrics": [float(metrics[name]) for name in ("loss", "accuracy")],
        "expected_metrics": expected_metrics,
        "trained": [
            f"edge_{edge}/branch_{op}"
            for edge, op in np.ndindex(2, len(OPS))
            if largest_difference(
                *(p[f"edge_{edge}"].get(f"branch_{op}", {}) for p in (new.params, old))
            )
        ],
        "failed": {
            "loss": float(failed["loss"]),
            "decisions": failed["decisions"].tolist(),
        },
        "collectives": collectives(compiled.as_text()),
        "conditionals": compiled.as_text().count(" conditional("),
        "collectives_in_branches": collectives_in_branches(compiled.as_text()),
    }


@jax.jit
def gradient_on_one_device(params, decisions, images, labels):
    def loss_fn(params):
        logits = Network().apply({"params": params}, SPACE.bind(decisions), images)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return losses.mean(), (jnp.argmax(logits, 1) == labels).mean()

    return jax.value_and_grad(loss_fn, has_aux=True)(params)


def mean_step(params, parts) -> tuple:
    """The weights after a step, its loss and accuracy, from one gradient a part."""
    results = []
    for row, part in zip(ROWS, parts, strict=False):
        images = (DATASET.train.images[part] / 255 - 0.5) / 0.3
        results.append(
            gradient_on_one_device(
                params,
                jnp.array(row),
                jnp.asarray(images, jnp.float32),
                DATASET.train.labels[part],
            )
        )
    params, metrics = update_on_one_device(params, results)
    return params, [float(m) for m in metrics]


@jax.jit
def update_on_one_device(params, results):
    metrics, grads = jax.tree.map(lambda *leaves: sum(leaves) / len(leaves), *results)
    optimizer = sgd(0.05, **SGD)
    steps, _ = optimizer.update(grads, optimizer.init(params), params)
    return optax.apply_updates(params, steps), metrics


def poisoned(branches, name):
    return branches | {name: jax.tree.map(lambda w: w * np.nan, branches[name])}


def largest_difference(a, b) -> float:
    differences = jax.tree.map(lambda x, y: float(np.abs(x - y).max()), a, b)
    return max(jax.tree.leaves(differences), default=0.0)


def text_without_cast() -> str:
    """A gradient by what all devices hold, each in a branch of its own."""

    def local(w, x):
        index = jax.lax.axis_index("data")
        branches = (lambda w: (w * x).sum(), lambda w: (w - x).sum())
        return jax.grad(lambda w: jax.lax.switch(index, branches, w))(w)

    whole, parts = PartitionSpec(), PartitionSpec("data")
    gradient = jax.shard_map(
        local, mesh=make_mesh(2), in_specs=(whole, parts), out_specs=whole
    )
    x = jax.ShapeDtypeStruct((2,), jnp.float32)
    w = jax.ShapeDtypeStruct((), jnp.float32)
    return jax.jit(gradient).lower(w, x).compile().as_text()


# ---- reading programs ---------------------------------------------------------------

KINDS = "all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter"


def collectives(text: str) -> list[tuple[str, int]]:
    """(kind, elements of the largest operand) of each collective of a program."""
    pattern = rf"= (.*?) ({KINDS})(?:-start)?\("
    found = []
    for shapes, kind in re.findall(pattern, text):
        sizes = [1]
        for dims in re.findall(r"\w+\[([\d,]*)\]", shapes):
            size = 1
            for n in filter(None, dims.split(",")):
                size *= int(n)
            sizes.append(size)
        found.append((kind, max(sizes)))
    return found


def collectives_in_branches(text: str) -> list[tuple[str, int]]:
    """Those that the branches of conditionals hold, or what the branches call."""
    bodies, lines = {}, []
    for line in text.splitlines():
        if head := re.match(r"(?:ENTRY )?%([\w.-]+) \(.*\{$", line):
            lines = bodies.setdefault(head[1], [])
        else:
            lines.append(line)

    def called(lines):
        names = re.findall(r"%([\w.-]+)", "\n".join(lines))
        return {name for name in names if name in bodies}

    conditionals = [line for line in text.splitlines() if " conditional(" in line]
    inside, new = set(), called(conditionals)
    while new:
        inside |= new
        new = set().union(*(called(bodies[name]) for name in new)) - inside
    return collectives("\n".join(line for name in inside for line in bodies[name]))


def main() -> None:
    """Prints the figures of all counts as a line of JSON."""
    jax.config.update("jax_default_matmul_precision", "highest")
    augmented = {"pad": 1, "flip": True}
    searches = {n: make_evaluator(n, **augmented) for n in COUNTS}
    own = {"architectures_per_step": "per_device"}
    searches["per_device"] = make_evaluator(2, **own, **augmented)
    with ThreadPoolExecutor(2) as pool:  # programs that run at once could block
        compiled = list(pool.map(compile_search, searches.values()))
    results = [run_search(*parts) for parts in compiled]
    found = {"search": dict(zip(searches, results, strict=True))}
    relaxed_on = {n: compile_search(make_relaxed(n)) for n in (1, 2)}
    found["relaxed"] = {n: run_search(*parts) for n, parts in relaxed_on.items()}
    found["per_device"] = {n: step_per_device(n) for n in (2, 4)}
    params = jax.eval_shape(
        lambda key: Network().init(
            key, SPACE.bind(jnp.array(ROWS[0])), jnp.zeros((2, 8, 8, 1))
        ),
        jax.random.key(0),
    )
    found["largest_parameter"] = max(leaf.size for leaf in jax.tree.leaves(params))
    found["collectives_in_a_branch"] = len(collectives_in_branches(text_without_cast()))
    try:
        make_evaluator(4, batch_size=6)
    except ValueError as error:
        found["refused"] = str(error)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
