"""Workdirs as searches leave them, for the tests of reports."""

import types

import numpy as np
import pytest

from launch.build import resolve
from launch.settings import as_json
from launch.store import Row, Store
from launch.workdir import write_json

OPS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")


def config(space=None, **train):
    return resolve(
        {
            "data": {"name": "digits", "validation": 64, "seed": 0},
            "space": space or {"name": "nasbench201", "channels": 2, "cells": 1},
            "strategy": {"name": "reinforce"},
            "evaluator": {"name": "shared_weights", "batch_size": 4},
            "task": {"name": "classification"},
            "schedule": {"child_steps": 2, "policy_steps": 1, "samples": 2},
            "train": {"seed": 0, "rounds": 30, **train},
            "retrain": {},
            "baseline": {"n": 2},
        }
    )


def record(round, entropy=5.0, distinct=1.0, skips=0.2):
    rest = (1 - skips) / 4
    shares = [skips if op == "skip_connect" else rest for op in OPS]
    return {
        "round": round,
        "warm_up": False,
        "scored": 20,
        "distinct": distinct,
        "reward_mean": 0.3 + 0.01 * round,
        "reward_max": 0.5 - 0.01 * (round % 3),
        "baseline": 0.3,
        "entropy": entropy,
        "op_histogram": dict(zip(OPS, shares, strict=True)),
        "skip_share": None,
        "child_loss": 2.0,
        "child_accuracy": 0.5,
        "seconds": 1.5,
        "steps_per_second": 2.0,
    }


def make(folder, rounds=5, trials=20, settings=None, **fields):
    """A workdir as a search leaves it, of random cells whose reward is known."""
    folder.mkdir(exist_ok=True)
    write_json(folder / "config.json", as_json(settings or config()))
    rng = np.random.default_rng(0)
    with Store(folder, 0) as store:
        rows = []
        for i in range(rounds * trials):
            cell = rng.integers(0, 5, 6).tolist()
            reward = None if i == 3 else sum(cell) / 30 + i * 1e-6
            rows.append(
                Row(
                    i // trials,
                    i % trials,
                    ",".join(map(str, cell)),
                    reward,
                    reward is not None,
                    -5.0,
                    "|".join(map(str, cell)),
                    cost=float(sum(cell)),
                    reason=None if reward is not None else "diverged",
                )
            )
        store.add_trials(rows)
        for round in range(rounds):
            store.add_round(round, record(round, **fields))
    return folder


def finish(folder):
    best = {"decisions": [3] * 6, "genotype": "", "reward": 0.81}
    budget = {"scored": 100, "child_steps": 10, "seconds": 90.0}
    known = {"compile_seconds": 60.0, "device": "cpu", "jax": "0.10", "commit": None}
    result = {"best": best, "candidates": [best], "strategy": "reinforce"}
    result |= {"budget": budget, "diagnostics": known, "config_sha256": ""}
    write_json(folder / "result.json", result)
    accuracies = {"winner": 0.9, "a": 0.7, "b": 0.8}
    rows = {
        name: {
            "decisions": [3] * 6,
            "test_accuracy": accuracy,
            "standard_error": 0.01,
            "params": 1000,
            "macs": 5000,
            "seconds": 1.0,
            "compile_seconds": 2.0,
        }
        for name, accuracy in accuracies.items()
    }
    report = {"winner": rows["winner"], "random": [rows["a"], rows["b"]]}
    report |= {"others": [], "recipe": {}, "seed": 0}
    write_json(folder / "retrain.json", report)
    return folder


@pytest.fixture(scope="session")
def runs():
    """The functions above."""
    return types.SimpleNamespace(config=config, record=record, make=make, finish=finish)


@pytest.fixture(scope="module")
def two_runs(tmp_path_factory):
    """A finished and an unfinished search of one space, and their page."""
    from launch.report import read_runs
    from launch.reporting.page import page  # matplotlib takes a second to load

    folder = tmp_path_factory.mktemp("runs")
    finished = finish(make(folder / "first"))
    other = make(folder / "second", settings=config(seed=1))
    return page(read_runs([str(finished), str(other)]), count=3)
