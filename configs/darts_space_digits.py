"""First-order DARTS in its own space, two nodes a cell, on scikit-learn's digits.

    python -m launch.search  --config=configs/darts_space_digits.py --workdir=runs/darts
    python -m launch.retrain --workdir=runs/darts

A normal and two reduction cells of all eight ops; at the end of each epoch the dominant
Hessian eigenvalue of the validation loss is measured.
Hours: TODO
Expected: TODO
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = "") -> ConfigDict:
    """The config; see `common` for the argument."""
    config = common.relaxed_on_digits()
    config.space = ConfigDict({"name": "darts", "nodes": 2, "channels": 4, "cells": 3})
    config.strategy = ConfigDict({"name": "darts", "learning_rate": 1e-2})
    config.evaluator.hessian_every = config.schedule.policy_steps
    smoke = {"evaluator": {"hessian_every": 2}}
    return common.vary(config, arg, smoke)
