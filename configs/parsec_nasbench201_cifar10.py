"""PARSEC on the NAS-Bench-201 cell, for CPU; a found cell has a known accuracy.

    python -m launch.search --config=configs/parsec_nasbench201_cifar10.py \
        --config.data.name=npz:cifar10_small.npz --workdir=runs/parsec_nb201

What avoids the collapse of `darts_nasbench201_cifar10`: single paths are trained, and
evenly at first, so that skips do not win by needing no training.  8,000 images train
shared weights and 2,000 give likelihoods.
Hours: not measured; meant to be 0.2 on 2 CPU cores.
Expected: 93.0 % or more in the table; unknown until measured.
"""

from ml_collections import ConfigDict

from configs import common, darts_nasbench201_cifar10


def get_config(arg: str = "") -> ConfigDict:
    """The config; see `common` for the argument."""
    config = darts_nasbench201_cifar10.get_config()
    config.data.validation = 2000
    config.strategy = ConfigDict(
        {"name": "parsec", "learning_rate": 3e-2, "temperature": 0.1}
    )
    config.evaluator = ConfigDict(
        {
            "name": "shared_weights",
            "batch_size": 32,
            "reward_batch_size": 200,
            "reward": "negative_loss",
            "learning_rate": 0.15,
            "min_learning_rate": 0.0005,
            "restart_epochs": 40,
            "restart_factor": 1,
            "weight_decay": 5e-4,
            "clip_norm": 5.0,
            "pad": 4,
            "flip": True,
        }
    )
    config.schedule.update(
        child_steps=250,
        policy_steps=15,
        samples=10,
        warmup_rounds=28,
        uniform=0.2,
        alternate=False,
    )
    config.train.rounds = 40
    smoke = {"space": {"channels": 4, "cells": 1}}
    return common.vary(config, arg, smoke)
