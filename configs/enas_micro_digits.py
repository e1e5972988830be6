"""ENAS's micro space on scikit-learn's digits; what ``make search`` runs.

    python -m launch.search  --config=configs/enas_micro_digits.py --workdir=runs/digits
    python -m launch.retrain --workdir=runs/digits

Hours: 0.05 for the search and 0.03 for the retraining on 2 CPU cores.
Expected: 98.2 to 98.5 % test accuracy for the winner and for random cells alike: digits
are too easy.  They show that the mechanism works.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = "") -> ConfigDict:
    """The config; see `common` for the argument."""
    config = common.base()
    config.data.update(name="digits", validation=360)
    config.space.update(name="enas_micro", nodes=3, channels=8, layers=2, dropout=0.0)
    config.strategy.update(
        name="reinforce",
        learning_rate=3.5e-3,
        baseline_decay=0.95,
        entropy_weight=1e-3,
        policy={"hidden": 64, "tanh_constant": 2.5},
    )
    config.evaluator.update(
        batch_size=64,
        reward_batch_size=120,
        learning_rate=0.15,
        min_learning_rate=0.0005,
        restart_epochs=120,
        restart_factor=1,
        pad=1,
    )
    config.schedule.update(
        child_steps=17, policy_steps=10, samples=6, warmup_rounds=80, uniform=0.2
    )
    config.derive.n = 20
    config.train.update(rounds=120, checkpoint_seconds=20.0)
    config.retrain.update(epochs=30, batch_size=64, learning_rate=0.05, pad=1)
    smoke = {"space": {"nodes": 2, "channels": 4, "layers": 1}}
    return common.vary(config, arg, smoke)
