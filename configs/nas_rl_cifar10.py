"""REINFORCE over plain convolutions with skips on CIFAR-10.

    python -m launch.search  --config=configs/nas_rl_cifar10.py --workdir=runs/nas_rl
    python -m launch.retrain --workdir=runs/nas_rl

Zoph and Le 2017, https://arxiv.org/abs/1611.01578: a policy of two layers of 35 units,
12,800 children of 50 epochs; the depth grows from 6 by two layers every 1,600 of them;
the reward is the cube of the best accuracy of a child's last five epochs.
Hours: not measured here; the paper took 800 GPUs for 28 days.
Expected: 5.50 % test error at 15 layers for the paper's search; this one is not
measured here.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = "") -> ConfigDict:
    """The config; see `common` for the argument."""
    config = common.trials_on_cifar10(children=12_800)
    config.space.update(name="nas_rl_cnn", layers=20, fewest=6)
    config.strategy.update(
        name="reinforce",
        learning_rate=6e-4,
        growth_samples=1600,
        policy={"hidden": 35, "layers": 2, "init_scale": 0.08},
    )
    config.evaluator.update(
        epochs=50,
        batch_size=128,
        learning_rate=0.1,
        weight_decay=1e-4,
        reward_epochs=5,
        reward_power=3.0,
    )
    config.schedule.samples = 8  # children of one replica of the paper's policy
    config.schedule.policy_steps = 1
    config.train.rounds = 12_800 // 8
    config.retrain.update(batch_size=128, learning_rate=0.1, weight_decay=1e-4)
    smoke = {
        "space": {"layers": 3, "fewest": 1, "filters": (2, 4)},
        "evaluator": {"epochs": 2, "reward_epochs": 2},
        "strategy": {"growth_samples": 4},
    }
    return common.vary(config, arg, smoke)
