"""ProxylessNAS's search in DARTS's space on CIFAR-10.

    python -m launch.search  --config=configs/proxyless_cifar10.py --workdir=runs/proxy
    python -m launch.retrain --workdir=runs/proxy

Cai et al. 2019, https://arxiv.org/abs/1812.00332: one path is trained at a time, two
are compared every fifth step.  The architecture's settings are those of the authors'
ImageNet search, those of the weights DARTS's; the paper's own space on CIFAR-10 is
another one, trees in a PyramidNet.
Hours: unknown for the search on one GPU; not measured here.
Expected: not published for this space; 2.08 % test error, 5.7 M parameters in its own.
"""

from ml_collections import ConfigDict

from configs import common, darts_cifar10


def get_config(arg: str = "") -> ConfigDict:
    """The config; see `common` for the argument."""
    config = darts_cifar10.get_config()
    config.strategy = ConfigDict(
        {
            "name": "proxylessnas",
            "paths": 2,
            "learning_rate": 1e-3,
            "adam_b1": 0.0,
            "adam_b2": 0.999,
        }
    )
    config.evaluator.unsampled = "frozen"
    config.schedule.update(child_steps=390, policy_steps=78, warmup_rounds=25)
    config.train.rounds = 100
    config.evaluator.restart_epochs = 100
    return common.vary(config, arg, darts_cifar10.SMOKE)
