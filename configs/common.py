"""What all experiments share: the base of a config, and its argument.

A config file is one experiment.  Its ``get_config(arg)`` starts from `base`, and its
docstring gives the command, the hours and the number to expect.  Every config takes

    FILE:smoke           seconds instead of hours, on the built-in digits
    FILE:random          the same search with uniform sampling in place of the policy
    FILE:smoke,random    both
"""

from typing import Any, NamedTuple

from ml_collections import ConfigDict


class Variants(NamedTuple):
    """What the argument of a config asks for."""

    smoke: bool
    random: bool


def parse_arg(arg: str) -> Variants:
    """Reads the part of ``--config=FILE:ARG`` after the colon.

    Raises:
      ValueError: on an unknown word, listing the known ones.
    """
    words = [word for word in arg.split(",") if word]
    for word in words:
        if word not in Variants._fields:
            known = ", ".join(Variants._fields)
            raise ValueError(f"unknown config argument {word!r}; known: {known}")
    return Variants(**{name: name in words for name in Variants._fields})


def base() -> ConfigDict:
    """Sections with what rarely differs between experiments; the rest is empty."""
    return ConfigDict(
        {
            "data": {"seed": 0},
            "space": {},
            "strategy": {"policy": {}},
            "evaluator": {"name": "shared_weights"},
            "task": {"name": "classification"},
            "schedule": {},
            "objective": {},
            "derive": {},
            "train": {"seed": 0},
            "retrain": {},
            "baseline": {},
        }
    )


def trials_on_digits() -> ConfigDict:
    """Base of searches on digits that train every child by itself, with the budget.

    A round is five children, one after another; space and strategy are to be added.
    """
    config = base()
    config.data.update(name="digits", validation=360)
    config.evaluator.update(
        name="from_scratch",
        epochs=5,
        batch_size=64,
        reward_batch_size=120,
        learning_rate=0.1,
        pad=1,
    )
    config.schedule.update(child_steps=0, policy_steps=5, samples=1)
    config.derive.n = 5
    # After every call, so that a kill costs no more than the trials that were running.
    config.train.update(rounds=10, checkpoint_seconds=0.0)
    config.retrain.update(epochs=30, batch_size=64, learning_rate=0.05, pad=1)
    return config


def trials_on_cifar10(*, children: int) -> ConfigDict:
    """Base of searches on CIFAR-10 that train every child by itself.

    A round is 20 children, one after another; space, strategy and the epochs of a child
    are to be added.  The winner is trained as NASNet's is.

    Args:
      children: of the whole search.
    """
    config = base()
    config.data.update(name="cifar10", validation=5000)
    config.evaluator.update(
        name="from_scratch", reward_batch_size=200, pad=4, flip=True
    )
    config.schedule.update(child_steps=0, policy_steps=20, samples=1)
    config.derive.n = 20
    config.train.update(rounds=children // 20, checkpoint_seconds=0.0)
    config.retrain.update(
        epochs=600,
        batch_size=32,
        learning_rate=0.025,
        weight_decay=5e-4,
        pad=4,
        flip=True,
        cutout=16,
    )
    return config


def relaxed_on_digits() -> ConfigDict:
    """Base of differentiable searches on digits, a round an epoch of alternate steps.

    The strategy is to be added.
    """
    config = base()
    config.data.update(name="digits", validation=718)  # half of what is not for testing
    config.space.update(name="nasbench201", channels=8, cells=1)
    config.evaluator.update(
        name="relaxed",
        batch_size=32,
        reward_batch_size=32,
        learning_rate=0.1,
        restart_epochs=20,
        pad=1,
    )
    config.schedule.update(child_steps=22, policy_steps=22, alternate=True)
    config.derive.n = 1  # what the weights derive to
    config.train.update(rounds=20, checkpoint_seconds=20.0)
    config.retrain.update(epochs=30, batch_size=64, learning_rate=0.05, pad=1)
    return config


# Of a cell of NAS-Bench-201, as in the benchmark (Dong & Yang 2020), but for the cells.
NASBENCH201_RETRAIN = {
    "epochs": 200,
    "batch_size": 256,
    "learning_rate": 0.1,
    "weight_decay": 5e-4,
    "clip_norm": None,
    "pad": 4,
    "flip": True,
}
NASBENCH201_SMOKE = {"space": {"channels": 4, "cells": 1, "nodes": 3}}


def vary(config: ConfigDict, arg: str, smoke: dict[str, Any]) -> ConfigDict:
    """Applies the argument of a config.

    Args:
      config: the experiment.
      arg: of ``get_config``.
      smoke: sections of the smoke variant, beyond `SMOKE` and `SMOKE_BY_EVALUATOR`.

    Returns:
      the config, changed.
    """
    variants = parse_arg(arg)
    if variants.smoke:
        config.data = ConfigDict({"seed": config.data.seed})
        own = SMOKE_BY_EVALUATOR.get(config.evaluator.name, {})
        for sections in (SMOKE, own, smoke):
            for section, options in sections.items():
                for name, value in options.items():
                    config[section][name] = value
    if variants.random:
        config.strategy = ConfigDict({"name": "random_search"})
    return config


SMOKE = {
    "data": {
        "name": "digits",
        "validation": 64,
        "train_limit": 256,
        "test_limit": 64,
    },
    "evaluator": {
        "batch_size": 16,
        "reward_batch_size": 16,
        "pad": 1,
        "flip": False,
        "cutout": 0,
    },
    "schedule": {
        "child_steps": 4,
        "policy_steps": 2,
        "samples": 2,
        "warmup_rounds": 1,
    },
    "derive": {"n": 2},
    "train": {"rounds": 3},
    "retrain": {
        "space": {},
        "epochs": 1,
        "batch_size": 16,
        "restart_epochs": 0,
        "pad": 1,
        "flip": False,
        "cutout": 0,
    },
    "baseline": {"n": 1},
}

_SMOKE_TRIALS = {
    "evaluator": {"epochs": 1},
    "schedule": {"child_steps": 0, "warmup_rounds": 0},
}
SMOKE_BY_EVALUATOR = {
    "from_scratch": _SMOKE_TRIALS,
    "inherited": _SMOKE_TRIALS,
    "relaxed": {"schedule": {"samples": 1}},
}
