"""A search over two real processes of this machine, and how they are told to join.

The space is a linear layer, so that a program compiles in seconds.  This file is also a
program: it searches as one of two processes, and prints what it got.
"""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from absl import flags

from launch import distributed
from launch.command import UserError
from launch.store import read_rounds, read_trials

ROOT = Path(__file__).parents[2]
CONFIG = """
import flax.linen as nn
import jax.numpy as jnp

from child_models.spaces import SPACES
from child_models.types import Space
from configs import common
from controller.spec import Decision, DecisionSpec


class Linear(nn.Module):
    classes: int

    @nn.compact
    def __call__(self, choices, x, train, drop_path=0.0):
        shape = (3, x[0].size, self.classes)
        weights = self.param("weights", nn.initializers.lecun_normal(), shape)
        flat = x.reshape(len(x), -1)
        flat = flat - flat.mean(0, keepdims=True)  # a statistic of the whole batch
        return sum(flat @ jnp.take(weights, choice, 0) for choice in choices)


def linear(*, classes, dtype="float32"):
    names = ("none", "conv", "pool")
    spec = DecisionSpec(tuple(Decision(f"op{t}", names) for t in range(2)))
    bind = lambda decisions: (decisions[0], decisions[1])
    return Space(spec, lambda form: Linear(classes), bind, None, {"sampled"}, False)


SPACES["linear"] = linear


def get_config():
    config = common.base()
    config.space.name = "linear"
    config.strategy.update(name="reinforce", learning_rate=0.01, policy={"hidden": 4})
    evaluator = {"batch_size": 4, "reward_batch_size": 4, "reward": "negative_loss"}
    train = {"checkpoint_seconds": 0.0, "steps_per_call": 3}
    smoke = {"evaluator": evaluator | {"pad": 0}, "train": train}
    return common.vary(config, "smoke", smoke)
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def given(monkeypatch):
    """``(coordinator, num_processes, process_id)`` sets the flags, in no cluster."""
    for name in [*distributed._SLURM_STEP, "TPU_WORKER_HOSTNAMES"]:
        monkeypatch.delenv(name, raising=False)
    platforms = jax.config.jax_platforms
    jax.config.update("jax_platforms", "cpu")
    names = ("coordinator", "num_processes", "process_id")
    distributed.define_flags()

    def give(*values):
        for name, value in zip(names, values, strict=True):
            monkeypatch.setattr(flags.FLAGS[name], "value", value)

    yield give
    jax.config.update("jax_platforms", platforms)
    for name in names:
        delattr(flags.FLAGS, name)


@pytest.mark.parametrize(
    "values, message",
    [
        (("host:1", None, None), "--num_processes and --process_id missing; give"),
        ((None, 2, 0), "--coordinator missing; give"),
        (("host:1", 2, 2), "--process_id is 2; of --num_processes=2 .* be 0 to 1"),
        (("host:1", 2, -1), "--process_id is -1"),
        (("host:1", 0, 0), "--num_processes is 0; it must be 1 or more"),
        (("host", 2, 0), "--coordinator is 'host'; expected HOST:PORT"),
        (("host:70000", 2, 0), "--coordinator is 'host:70000'; expected HOST:PORT"),
    ],
)
def test_flags_that_do_not_go_together(given, values, message):
    given(*values)
    with pytest.raises(UserError, match=message):
        distributed.arguments_from_flags()


def test_flags_are_handed_on(given):
    given("[::1]:99", 3, 2)
    assert distributed.arguments_from_flags() == {
        "coordinator_address": "[::1]:99",
        "num_processes": 3,
        "process_id": 2,
    }
    given("host:1", 1, 0)
    assert distributed.arguments_from_flags() is None


def test_a_slurm_step_of_several_tasks_is_a_cluster(given, monkeypatch):
    given(None, None, None)
    monkeypatch.setenv("SLURM_NTASKS", "4")
    assert distributed.arguments_from_flags() is None  # a batch script, without srun
    for name in distributed._SLURM_STEP:
        monkeypatch.setenv(name, "0")
    assert distributed.arguments_from_flags() == {}
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "1")
    assert distributed.arguments_from_flags() is None


def test_a_tpu_slice_of_several_hosts_is_a_cluster(given, monkeypatch):
    given(None, None, None)
    monkeypatch.setenv("TPU_WORKER_HOSTNAMES", "a,b")
    assert distributed.arguments_from_flags() is None  # JAX is to use the CPU
    jax.config.update("jax_platforms", "tpu,cpu")
    monkeypatch.delenv("TPU_SKIP_MDS_QUERY", raising=False)
    assert distributed.arguments_from_flags() == {}
    monkeypatch.setenv("TPU_WORKER_HOSTNAMES", "a")
    assert distributed.arguments_from_flags() is None


def test_a_taken_port_and_a_silent_one_are_told(monkeypatch):
    monkeypatch.setattr(distributed, "CONNECT_SECONDS", 0)
    silent = f"127.0.0.1:{free_port()}"
    with pytest.raises(UserError, match=f"not answer at --coordinator={silent}: "):
        distributed._meet(silent, 1)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"cannot listen at port {port}: "):
            distributed._meet(f"127.0.0.1:{port}", 0)


def test_one_process_agrees_with_itself():
    np.testing.assert_array_equal(distributed.exchange(3, 4), [[3, 4]])
    tree = {"a": np.float32([-0.0, 2]), "b": np.bool_(True)}
    assert distributed.broadcast(tree) is tree
    with pytest.raises(OSError), distributed.all_or_none():
        raise OSError


# ---- two processes ------------------------------------------------------------------


def start(program, arguments, *, devices=1):
    flag = f"--xla_force_host_platform_device_count={devices}"
    fast = "--xla_backend_optimization_level=0"
    return subprocess.Popen(
        [sys.executable, *program, *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {"XLA_FLAGS": f"{flag} {fast}", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def start_search(folder, rounds):
    """The command on both; process 1 is given a folder that it must not touch."""
    port = free_port()
    common = [f"--config={folder / 'config.py'}", f"--config.train.rounds={rounds}"]
    common += [f"--coordinator=127.0.0.1:{port}", "--num_processes=2"]
    return [
        start(
            ["-m", "launch.search"],
            [*common, f"--process_id={i}", f"--workdir={folder / workdir}"],
        )
        for i, workdir in enumerate(["stopped", "elsewhere"])
    ]


def start_whole(folder, rounds):
    """A search in a go, of two processes that print its result."""
    port = free_port()
    return [
        start([__file__], [folder / "config.py", rounds, folder / workdir, port, i])
        for i, workdir in enumerate(["whole", "elsewhere"])
    ]


def finish(processes, code=0):
    """What each process has printed, JAX's own line aside."""
    outputs = [process.communicate(timeout=200) for process in processes]
    assert [process.returncode for process in processes] == [code] * 2, outputs
    return [
        [line for line in out.splitlines() if not line.startswith("[Gloo]")]
        for out, _ in outputs
    ]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "config.py").write_text(CONFIG)
    return tmp_path


def test_both_return_the_same_and_only_process_0_prints_and_writes(folder):
    first, second = finish(start_whole(folder, 2))
    assert any(line.startswith("round 2/2") for line in first)
    assert len(second) == 1  # what this program prints
    result = json.loads(first[-1])
    assert result == json.loads(second[-1])
    assert result == json.loads((folder / "whole" / "result.json").read_text())
    assert len(read_trials(folder / "whole")) == 4
    assert not (folder / "elsewhere").exists()


@pytest.mark.slow
def test_sigterm_to_one_stops_both_and_they_go_on_to_the_same_bits(folder, comparable):
    processes = start_search(folder, 10000)
    for line in processes[0].stdout:
        if line.startswith("round 2/"):
            break
    processes[1].send_signal(signal.SIGTERM)
    first, second = finish(processes, 143)
    assert "stopped, all saved; to continue: " in first[-1] and not second
    rounds = read_rounds(folder / "stopped")[-1]["round"] + 3
    first, second = finish(start_search(folder, rounds))
    assert "launch.retrain --workdir=" in first[-1] and not second
    assert not any(line.startswith("round 1/") for line in first)
    assert not (folder / "elsewhere").exists()
    finish(start_whole(folder, rounds))
    assert comparable(folder / "stopped") == comparable(folder / "whole")


@pytest.mark.slow
def test_one_process_with_as_many_devices_agrees(folder):
    finish(start_whole(folder, 2))
    one = start([__file__], [folder / "config.py", 2, folder / "one"], devices=2)
    _, error = one.communicate(timeout=200)
    assert one.returncode == 0, error
    trials = [read_trials(folder / name) for name in ("whole", "one")]
    assert len(trials[0]) == 4
    for two, one in zip(*trials, strict=True):
        assert two[:4] == one[:4]
        assert two[4:] == pytest.approx(one[4:], rel=1e-4)


def main() -> None:
    """Searches, alone or as one of two processes, and prints the result as JSON."""
    from launch.config_flag import read_file
    from launch.driver import search

    path, rounds, workdir, *place = sys.argv[1:]
    config = read_file(path)
    config["train"]["rounds"] = int(rounds)
    arguments = None
    if place:
        address, number = f"127.0.0.1:{place[0]}", int(place[1])
        arguments = dict(coordinator_address=address, num_processes=2)
        arguments["process_id"] = number
    with distributed.joined(arguments):
        print(json.dumps(search(config, workdir)))


if __name__ == "__main__":
    main()
