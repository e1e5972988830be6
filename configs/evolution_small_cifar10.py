"""Regularized evolution of NAS-Bench-201's cells on 10,000 images of CIFAR-10.

    python -m launch.repeat --config=configs/evolution_small_cifar10.py --seeds=0,1,2 \
        --workdir=runs/evolution --config.data.name=npz:cifar10_small.npz

The algorithm of Real et al. 2019 with P=10 and S=4 over 40 children, each trained by
itself for two epochs in a network of N=1 and C=8.  Set it beside
``evolution_small_cifar10.py:random``.
Hours: 0.35 a seed on a CPU core, a quarter of it for retraining.
Expected: 64.48 +- 0.86 % of the test images, random search 62.18 +- 0.74.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = "") -> ConfigDict:
    """The config; see `common` for the argument."""
    config = common.trials_on_cifar10(children=40)
    config.data.validation = 2000
    config.space.update(name="nasbench201", channels=8, cells=1)
    config.strategy = ConfigDict(
        {"name": "regularized_evolution", "population": 10, "sample": 4}
    )
    config.evaluator.update(epochs=2, batch_size=64, learning_rate=0.1)
    config.schedule.policy_steps = 5
    config.train.rounds = 8
    config.derive.n = 3
    config.retrain.update(epochs=10, batch_size=64, learning_rate=0.05, cutout=0)
    config.baseline.n = 1
    smoke = {"space": {"channels": 4}}
    return common.vary(config, arg, smoke)
