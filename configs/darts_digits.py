"""First-order DARTS on the NAS-Bench-201 cell and scikit-learn's digits.

    python -m launch.search  --config=configs/darts_digits.py --workdir=runs/darts
    python -m launch.retrain --workdir=runs/darts

Half of the training images train shared weights, the other half the architecture's.
Hours: 0.05 for the search and 0.03 for the retraining on 2 CPU cores.
Expected: EXPECTED
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = "") -> ConfigDict:
    """The config; see `common` for the argument."""
    config = common.relaxed_on_digits()
    config.strategy = ConfigDict({"name": "darts", "learning_rate": 1e-2})
    smoke = {"space": {"channels": 4, "cells": 1}}
    return common.vary(config, arg, smoke)
