"""ENAS on the NAS-Bench-201 cell, for CPU; a found cell has a known accuracy.

    python -m launch.search --config=configs/enas_nasbench201_cifar10.py \
        --config.data.name=npz:cifar10_small.npz --workdir=runs/nb201

Without ``--config.data.name`` it takes CIFAR-10 from TensorFlow Datasets.  8,000 images
train shared weights and 2,000 give rewards; the file has x_train y_train x_test y_test.
At first shared weights rank cells worse than chance, as skips need no training; so the
policy learns only after 38 of 50 rounds, batches are small, and a fifth of the child
steps stays uniform.
Hours: 0.7 on one CPU core, with another search on the other.
Expected: cells of 93.2 to 93.4 % in the table; six 3x3 convolutions have 93.76.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = "") -> ConfigDict:
    """The config; see `common` for the argument."""
    config = common.base()
    config.data.update(name="cifar10", validation=2000, train_limit=10000)
    config.space.update(name="nasbench201", channels=16, cells=1)
    config.strategy.update(
        name="reinforce",
        learning_rate=3e-3,
        baseline_decay=0.95,
        entropy_weight=0.0,
        policy={"hidden": 64},
    )
    config.evaluator.update(
        batch_size=32,
        reward_batch_size=200,
        learning_rate=0.15,
        min_learning_rate=0.0005,
        restart_epochs=50,
        restart_factor=1,
        weight_decay=5e-4,
        clip_norm=5.0,
        pad=4,
        flip=True,
    )
    config.schedule.update(
        child_steps=250, policy_steps=15, samples=10, warmup_rounds=38, uniform=0.2
    )
    config.derive.n = 100
    config.train.rounds = 50
    config.retrain.update(space={"cells": 5}, **common.NASBENCH201_RETRAIN)
    return common.vary(config, arg, common.NASBENCH201_SMOKE)
