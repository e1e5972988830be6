"""A search on several devices: what one device returns, and what crosses them.

The devices are simulated, which must be asked for before JAX starts; so this file is
also the program that the tests run.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

COUNTS = (1, 2, 4, 8)
BATCH = 8
ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def found():
    """What a search of 2 weight steps and a policy step gave, by number of devices."""
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


@pytest.mark.parametrize("count", COUNTS[1:])
def test_several_devices_return_what_one_does(found, count):
    one, many = found["1"], found[str(count)]
    assert many["devices"] == count
    assert len(one["policy"]) > 100 and one["loss"][0] != one["loss"][1]
    for name in ("loss", "reward", "policy"):
        assert many[name] == pytest.approx(one[name], rel=1e-5, abs=1e-7), name


def test_only_gradients_statistics_and_rewards_cross_devices(found):
    assert not found["1"]["collectives"]
    for count in COUNTS[1:]:
        kinds = {kind for kind, _ in found[str(count)]["collectives"]}
        assert kinds == {"all-reduce"}
        largest = max(size for _, size in found[str(count)]["collectives"])
        assert largest <= found["1"]["largest_parameter"]


def test_a_batch_that_does_not_split_is_refused(found):
    assert "batch_size is 6; it must be a multiple of the 4 devices" in found["refused"]


def main() -> None:
    """Prints the figures of all counts as a line of JSON."""
    import jax
    import numpy as np
    from jax.sharding import Mesh

    from child_models.evaluators.shared_weights import shared_weights
    from child_models.spaces import SPACES
    from child_models.tasks.classification import classification
    from child_models.types import Dataset, Split
    from controller.loop import make_loop, schedule
    from controller.strategies.reinforce import reinforce

    jax.config.update("jax_default_matmul_precision", "highest")
    generator = np.random.default_rng(0)

    def split(n):
        images = generator.integers(0, 256, (n, 8, 8, 1), dtype=np.uint8)
        return Split(images, generator.integers(0, 3, n).astype(np.int32))

    mean, std = np.array([0.5], np.float32), np.array([0.3], np.float32)
    data = Dataset("random", split(24), split(16), split(4), 3, mean, std)
    space = SPACES["nasbench201"](classes=3, channels=4, cells=1)

    def evaluator(count, batch):
        mesh = Mesh(np.array(jax.devices()[:count]), ("data",))
        sizes = {"batch_size": batch, "reward_batch_size": BATCH}
        task = classification(classes=3)
        return shared_weights(space, task, data, pad=1, flip=True, mesh=mesh, **sizes)

    found = {}
    for count in COUNTS:
        strategy = reinforce(space.spec, learning_rate=0.01, policy={"hidden": 8})
        phases = schedule(rounds=1, child_steps=2, policy_steps=1, samples=2)
        loop = make_loop(
            space.spec, strategy, evaluator(count, BATCH), phases, max_ticks=3
        )
        state = loop.init(jax.random.key(0))
        largest = max(leaf.size for leaf in jax.tree.leaves(state.evaluator.params))
        text = loop.compiled_text(state)
        state, log = loop.run(state, 3)
        policy = jax.tree.leaves(state.strategy)
        policy = [leaf for leaf in policy if leaf.dtype == np.float32]
        found[count] = {
            "devices": len(log.reward.sharding.device_set),
            "loss": np.asarray(log.child["loss"])[:2].tolist(),
            "reward": np.asarray(log.reward)[2].tolist(),
            "policy": np.concatenate([np.ravel(leaf) for leaf in policy]).tolist(),
            "largest_parameter": largest,
            "collectives": collectives(text),
        }
    try:
        evaluator(4, 6)
    except ValueError as error:
        found["refused"] = str(error)
    print(json.dumps(found))


def collectives(text: str) -> list[tuple[str, int]]:
    """(kind, elements of the largest operand) of each collective of a program."""
    kinds = "all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter"
    pattern = rf"= (.*?) ({kinds})(?:-start)?\("
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


if __name__ == "__main__":
    main()
