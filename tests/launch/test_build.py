"""Building from a config: mistakes are told in one line, before anything compiles."""

import importlib.util

import numpy as np
import pytest

from launch import build
from launch.command import UserError


def good(**changes):
    """A small config of real data and networks, with dotted keys changed."""
    config = {
        "data": {"name": "digits", "validation": 64, "seed": 0, "train_limit": 256},
        "space": {"name": "enas_micro", "nodes": 2, "channels": 4, "layers": 1},
        "strategy": {"name": "reinforce"},
        "evaluator": {
            "name": "shared_weights",
            "batch_size": 8,
            "reward_batch_size": 8,
        },
        "task": {"name": "classification"},
        "schedule": {"child_steps": 2, "policy_steps": 1, "samples": 2},
        "train": {"seed": 0, "rounds": 2},
    }
    for key, value in changes.items():
        section, _, name = key.partition("__")
        config.setdefault(section, {})[name] = value
    return config


@pytest.mark.parametrize(
    "changes, text",
    [
        ({"space__chanels": 4}, "'chanels'; did you mean channels.*known: "),
        ({"spaces__name": "x"}, "config has no key 'spaces'; did you mean space"),
        ({"space__name": "x"}, "config.space.name is 'x'; known: .*enas_micro"),
        ({"strategy__name": "x"}, "config.strategy.name is 'x'; known: .*reinforce"),
        ({"evaluator__name": "x"}, "evaluator.name is 'x'; known: .*shared_weights"),
        ({"task__name": "x"}, "config.task.name is 'x'; known: classification"),
        ({"space__classes": 3}, "config.space has no key 'classes'"),
        ({"space__channels": "four"}, "space.channels is 'four'; it must be int"),
        ({"space__channels": 0}, "channels is 0; it must be at least 1"),
        ({"train__rounds": 0}, "rounds is 0; it must be 1 or more"),
        ({"train__dtype": "float8"}, "dtype is 'float8'; known: float32, bfloat16"),
        ({"train__stages": 3}, "train.stages is 3; it must be a list"),
        ({"train__stages": [3]}, r"train.stages\[0\] is 3; it must hold keys"),
        ({"derive__n": 0}, "config.derive: n is 0"),
        ({"baseline__n": -1}, "config.baseline: n is -1"),
        ({"schedule__warmup_rounds": 2}, "warmup_rounds is 2; it must be below rounds"),
        ({"evaluator__batch_size": 999}, "config.evaluator.*999.*192"),
        ({"evaluator__reward_batch_size": 65}, "config.evaluator.*65.*64"),
        ({"evaluator__reward_batch": "x"}, "'x'; known: shared, fresh"),
        ({"data__name": "digitz"}, "config.data: unknown data set 'digitz'; .*digits"),
        ({"data__name": "npz:absent.npz"}, "config.data: .*absent.npz"),
        ({"data__validation": 0.0}, "config.data: .*validation"),
    ],
)
def test_a_mistake_in_a_config_is_told_in_one_line(changes, text):
    with pytest.raises(UserError, match=text) as mistake:
        build.build(good(**changes))
    assert "\n" not in str(mistake.value)


def test_a_missing_key_is_named():
    config = good()
    del config["train"]["rounds"]
    with pytest.raises(UserError, match="config.train.rounds is missing"):
        build.resolve(config)


def test_resolving_fills_in_defaults_and_does_so_once():
    resolved = build.resolve(good())
    assert resolved.derive.n == 10 and resolved.baseline.n == 3
    assert build.resolve(resolved).to_dict() == resolved.to_dict()


def trials(**changes):
    """A config of children that share nothing."""
    changes = {"schedule__child_steps": 0, **changes}
    return good(evaluator__name="from_scratch", **changes)


def test_the_executor_says_who_drives_the_search(monkeypatch):
    assert build.build(trials()).loop.compiled_text is None
    compiled = trials(evaluator__executor="compiled")
    assert build.build(compiled).loop.compiled_text is not None
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"ray: pip install 'cellwright\[ray\]'"):
        build.build(trials(evaluator__executor="ray"))


@pytest.mark.parametrize(
    "config, text",
    [
        (trials(evaluator__workers=0), "config.evaluator: workers is 0; it must be 1"),
        (trials(evaluator__executor="x"), "executor is 'x'; known: auto, compiled, lo"),
        (good(evaluator__executor="ray"), "config.evaluator has no key 'executor'"),
    ],
)
def test_what_no_executor_can_do_is_told(config, text):
    with pytest.raises(UserError, match=text):
        build.build(config)


IMAGES = np.zeros((40, 8, 8, 3), np.uint8)
LABELS = np.arange(40) % 4
ARRAYS = {"x_train": IMAGES, "y_train": LABELS, "x_test": IMAGES, "y_test": LABELS}


@pytest.mark.parametrize(
    "field, value, text",
    [
        ("y_train", None, "y_train"),
        ("x_train", IMAGES[0], "x_train"),
        ("x_test", IMAGES.astype(np.float64), "float64"),
        ("y_train", LABELS - 1, "-1"),
        ("y_test", LABELS[:5], "5"),
    ],
)
def test_a_malformed_npz_file_is_told_in_one_line(tmp_path, field, value, text):
    arrays = {name: array for name, array in ARRAYS.items() if name != field}
    if value is not None:
        arrays[field] = value
    np.savez(tmp_path / "data.npz", **arrays)
    config = good(data__name=f"npz:{tmp_path}/data.npz", data__validation=8)
    del config["data"]["train_limit"]
    with pytest.raises(UserError, match=f"config.data: .*{text}") as mistake:
        build.build(config)
    assert "\n" not in str(mistake.value)
