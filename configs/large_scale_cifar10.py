"""Large-scale evolution of graphs on CIFAR-10.

    python -m launch.search  --config=configs/large_scale_cifar10.py --workdir=runs/lse
    python -m launch.retrain --workdir=runs/lse

The settings of Real et al. 2017: a population of 1000 that begins with linear
classifiers; children train 25,600 steps of 50 images with SGD of momentum 0.9 and
weight decay 1e-4 at the rate of their graph, and are scored on 5,000 images.  Unlike
there, one process trains one child after another, where 250 workers did, and the
momentum is Nesterov's.
Hours: thousands on one GPU; the paper spent about 1e20 floating-point operations.
Expected: 94.6 % test accuracy published, with 5.4 M parameters; not run here.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = "") -> ConfigDict:
    """The config; see `common` for the argument."""
    config = common.base()
    config.data.update(name="cifar10", validation=5000)
    config.space.update(name="large_scale")
    config.strategy = ConfigDict({"name": "large_scale_evolution", "population": 1000})
    config.evaluator.update(
        name="inherited",
        epochs=28,  # 25,200 steps
        batch_size=50,
        reward_batch_size=500,
        weight_decay=1e-4,
        pad=4,
        flip=True,
    )
    config.schedule.update(child_steps=0, policy_steps=100, samples=1)
    config.train.rounds = 100
    config.retrain.update(
        epochs=200,
        batch_size=50,
        learning_rate=0.1,
        weight_decay=1e-4,
        pad=4,
        flip=True,
    )
    smoke = {"evaluator": {"quick_compile": True}, "strategy": {"population": 3}}
    return common.vary(config, arg, smoke)
