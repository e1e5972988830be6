"""NASNet's space and its PPO controller on CIFAR-10, over shared weights.

    python -m launch.search  --config=configs/nasnet_ppo_cifar10.py --workdir=runs/ppo
    python -m launch.retrain --workdir=runs/ppo

Zoph et al. 2018, https://arxiv.org/abs/1707.07012: policy and proxy network (N=2, F=32)
are the paper's.  The paper trains 20,000 children from scratch, for 2,000 GPU-days;
here they share weights, trained as ENAS trains its own.
Hours: not measured here.
Expected: 3.41 % test error at 6@768, 2.65 % with cutout, for the paper's search; this
one is not measured here.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = "") -> ConfigDict:
    """The config; see `common` for the argument."""
    config = common.base()
    config.data.update(name="cifar10", validation=5000)
    config.space.update(name="nasnet", blocks=5, channels=32, cells=6)
    config.strategy.update(
        name="ppo",
        learning_rate=3.5e-4,
        baseline_decay=0.95,
        entropy_weight=1e-5,
        policy={"hidden": 100, "init_scale": 0.1},
    )
    config.evaluator.update(
        batch_size=128,
        reward_batch_size=128,
        learning_rate=0.05,
        min_learning_rate=0.0005,
        restart_epochs=10,
        restart_factor=2,
        weight_decay=5e-4,
        clip_norm=5.0,
        pad=4,
        flip=True,
    )
    config.schedule.update(child_steps=351, policy_steps=25, samples=20)
    config.derive.n = 20
    config.train.rounds = 150
    config.retrain.update(
        space={"cells": 18, "aux_head": True},
        epochs=600,
        batch_size=32,
        learning_rate=0.025,
        weight_decay=5e-4,
        clip_norm=5.0,
        drop_path=0.4,
        auxiliary_weight=0.4,
        pad=4,
        flip=True,
        cutout=16,
    )
    smoke = {"space": {"blocks": 1, "channels": 4, "cells": 3}}
    return common.vary(config, arg, smoke)
