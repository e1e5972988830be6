"""First-order DARTS on CIFAR-10 with the paper's settings.

    python -m launch.search  --config=configs/darts_cifar10.py --workdir=runs/darts
    python -m launch.retrain --workdir=runs/darts

Liu et al. 2019, https://arxiv.org/abs/1806.09055: half of the training images for
shared weights, half for the architecture's, 50 epochs; the derived network for 600
epochs at 20 cells and 36 channels.  The authors search with four seeds, and augment the
images of the architecture's half too, which is not done here.
Hours: 1.5 GPU-days for the search (published); not measured here.
Expected: 3.00 % test error, 3.3 M parameters (published); not measured here.
"""

from ml_collections import ConfigDict

from configs import common

SMOKE = {"space": {"nodes": 2, "channels": 4, "cells": 3}}  # and of those on it


def get_config(arg: str = "") -> ConfigDict:
    """The config; see `common` for the argument."""
    config = common.base()
    config.data.update(name="cifar10", validation=25000)
    config.space.update(name="darts", channels=16, cells=8)
    config.strategy = ConfigDict(
        {
            "name": "darts",
            "learning_rate": 3e-4,
            "adam_b1": 0.5,
            "adam_b2": 0.999,
            "weight_decay": 1e-3,
        }
    )
    config.evaluator.update(
        name="relaxed",
        hypergradient="first",
        batch_size=64,
        reward_batch_size=64,
        learning_rate=0.025,
        min_learning_rate=0.001,
        restart_epochs=50,
        momentum=0.9,
        weight_decay=3e-4,
        clip_norm=5.0,
        pad=4,
        flip=True,
    )
    config.schedule.update(child_steps=390, policy_steps=390, alternate=True)
    config.derive.n = 1  # what the weights derive to
    config.train.rounds = 50
    config.retrain.update(
        space={"channels": 36, "cells": 20, "aux_head": True},
        epochs=600,
        batch_size=96,
        learning_rate=0.025,
        momentum=0.9,
        nesterov=False,
        weight_decay=3e-4,
        clip_norm=5.0,
        drop_path=0.2,
        drop_path_by="epoch",
        auxiliary_weight=0.4,
        pad=4,
        flip=True,
        cutout=16,
    )
    return common.vary(config, arg, SMOKE)
