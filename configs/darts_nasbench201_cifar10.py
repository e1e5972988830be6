"""DARTS on the NAS-Bench-201 cell, for CPU; a found cell has a known accuracy.

    python -m launch.search --config=configs/darts_nasbench201_cifar10.py \
        --config.data.name=npz:cifar10_small.npz --workdir=runs/darts_nb201

Without ``--config.data.name`` it takes CIFAR-10 from TensorFlow Datasets.  Of 10,000
images half train shared weights, half their architecture's; the file has x_train
y_train x_test y_test.  The network is small, N=1 and C=8.  Images are
not augmented and the rate of the architecture's weights is 100 times that of the paper,
chosen so that its collapse shows in 16 epochs: skips take over, and the search warns.
With augmentation, a rate of 6e-3 and 20 rounds seed 0 found 91.37 % without a skip.
Hours: 0.3 on a CPU core.
Expected: see the README.  Published, of longer searches, are 54.30 %, a cell of skips
only; the mean of all cells is 87.06, and six 3x3 convolutions have 93.76.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = "") -> ConfigDict:
    """The config; see `common` for the argument."""
    config = common.base()
    config.data.update(name="cifar10", validation=5000, train_limit=10000)
    config.space.update(name="nasbench201", channels=8, cells=1)
    config.strategy = ConfigDict(
        {"name": "darts", "learning_rate": 3e-2, "weight_decay": 0.0}
    )
    config.evaluator.update(
        name="relaxed",
        batch_size=64,
        reward_batch_size=64,
        learning_rate=0.1,
        min_learning_rate=0.001,
        restart_epochs=20,
        nesterov=True,
        weight_decay=5e-4,
        clip_norm=5.0,
    )
    config.schedule.update(child_steps=78, policy_steps=78, alternate=True)
    config.derive.n = 1  # what the weights derive to
    config.train.rounds = 16
    config.retrain.update(
        space={"channels": 16, "cells": 5}, **common.NASBENCH201_RETRAIN
    )
    return common.vary(config, arg, common.NASBENCH201_SMOKE)
