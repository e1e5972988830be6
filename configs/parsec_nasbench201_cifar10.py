"""PARSEC on the NAS-Bench-201 cell, for CPU; a found cell has a known accuracy.

    python -m launch.search --config=configs/parsec_nasbench201_cifar10.py \
        --config.data.name=npz:cifar10_small.npz --workdir=runs/parsec_nb201

Single paths are trained, and evenly at first, so that skips do not win by needing no
training, as they do in `darts_nasbench201_cifar10`.  8,000 images train shared weights
and 2,000 give likelihoods.
Hours: 0.1 on a CPU core.
Expected: seeds 0, 1, 2 found cells of 92.83, 92.01 and 91.78 % in the table, with one,
three and one skip.
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
    return common.vary(config, arg, common.NASBENCH201_SMOKE)
