"""Regularized evolution of AmoebaNet cells on CIFAR-10.

    python -m launch.search  --config=configs/amoeba_cifar10.py --workdir=runs/amoeba
    python -m launch.retrain --workdir=runs/amoeba

Real et al. 2019, https://arxiv.org/abs/1802.01548: P=100, S=25, 20,000 children of N=3
and F=24 for 25 epochs each, and the final AmoebaNet-A (6, 32), as the paper has them.
Hours: not measured here; the paper took 450 GPUs for 7 days.
Expected: 3.40 +- 0.08 % test error at (6, 32) for the paper's search; this one is not
measured here.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = "") -> ConfigDict:
    """The config; see `common` for the argument."""
    config = common.trials_on_cifar10(children=20_000)
    config.space.update(name="amoeba_cell", channels=24, cells=9)
    config.strategy = ConfigDict(
        {"name": "regularized_evolution", "population": 100, "sample": 25}
    )
    config.evaluator.update(epochs=25, batch_size=128, learning_rate=0.024)
    config.retrain.update(
        space={"cells": 18, "channels": 32, "aux_head": True},
        batch_size=128,
        learning_rate=0.024,
        drop_path=0.3,
        auxiliary_weight=0.5,
    )
    smoke = {"space": {"blocks": 1, "channels": 4, "cells": 2}}
    return common.vary(config, arg, smoke)
