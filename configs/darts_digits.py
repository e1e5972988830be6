"""First-order DARTS on the NAS-Bench-201 cell and scikit-learn's digits.

    python -m launch.search  --config=configs/darts_digits.py --workdir=runs/darts
    python -m launch.retrain --workdir=runs/darts

Half of the training images train weights, the other half their architecture's.
Hours: 0.05 for the search on 2 CPU cores.
Expected: TODO
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = "") -> ConfigDict:
    """The config; see `common` for the argument."""
    config = common.relaxed_on_digits()
    config.strategy = ConfigDict({"name": "darts", "learning_rate": 3e-3})
    smoke = {"space": {"channels": 4, "cells": 1}}
    return common.vary(config, arg, smoke)
