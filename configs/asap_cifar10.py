"""ASAP on CIFAR-10.

    python -m launch.search  --config=configs/asap_cifar10.py --workdir=runs/asap
    python -m launch.retrain --workdir=runs/asap

Noy et al. 2019, https://arxiv.org/abs/1904.04123, with the numbers of a third party's
implementation: the temperature falls from 1.6 by 5 % an epoch; below 1, from epoch 10,
the architecture is learnt and ops are pruned.  It keeps two edges of a node in the end.
Hours: 0.2 GPU-days for the search (published); not measured here.
Expected: 1.99 % test error, 2.5 M parameters (published); not measured here.
"""

from ml_collections import ConfigDict

from configs import common, darts_cifar10


def get_config(arg: str = "") -> ConfigDict:
    """The config; see `common` for the argument."""
    config = darts_cifar10.get_config()
    config.strategy = ConfigDict(
        {
            "name": "asap",
            "temperature": 1.6,
            "decay": 0.95,
            "grace_temperature": 1.0,
            "threshold": 0.4,
            "learning_rate": 3e-4,
            "weight_decay": 1e-3,
        }
    )
    return common.vary(config, arg, darts_cifar10.SMOKE)
