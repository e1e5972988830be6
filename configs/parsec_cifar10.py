"""PARSEC on CIFAR-10.

    python -m launch.search  --config=configs/parsec_cifar10.py --workdir=runs/parsec
    python -m launch.retrain --workdir=runs/parsec

Casale et al. 2019, https://arxiv.org/abs/1902.05116: 16 samples share a step by their
likelihoods, of which one at a time is in memory.  The number of samples, the rate of
the distribution and the temperature are not the paper's, which does not print them.
Hours: 1 GPU-day for the search (published); not measured here.
Expected: 2.81 +- 0.03 % test error, 3.7 M parameters (published); not measured here.
"""

from ml_collections import ConfigDict

from configs import common, darts_cifar10


def get_config(arg: str = "") -> ConfigDict:
    """The config; see `common` for the argument."""
    config = darts_cifar10.get_config()
    config.strategy = ConfigDict(
        {"name": "parsec", "learning_rate": 3e-3, "temperature": 0.1}
    )
    config.evaluator = ConfigDict(
        {
            "name": "shared_weights",
            "batch_size": 64,
            "reward_batch_size": 64,
            "reward": "negative_loss",
            "learning_rate": 0.025,
            "min_learning_rate": 0.001,
            "restart_epochs": 50,
            "restart_factor": 1,
            "momentum": 0.9,
            "nesterov": False,
            "weight_decay": 3e-4,
            "clip_norm": 5.0,
            "unsampled": "frozen",
            "architectures_per_step": 16,
            "likelihood_temperature": 0.1,
            "pad": 4,
            "flip": True,
        }
    )
    config.schedule.samples = 16
    return common.vary(config, arg, darts_cifar10.SMOKE)
