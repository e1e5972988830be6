"""NAS-Bench-201's table by REINFORCE, accuracy against multiply-adds.

    python -m launch.search --config=configs/tabular_nasbench201_macs.py \
        --config.evaluator.table=nasbench201_table.npz --workdir=runs/macs

Rewards are the 12-epoch validation accuracy on CIFAR-10, times what is above 60 million
multiply-adds to the power of -1 (MnasNet's hard form).  The same search with another
objective: ``--config.objective.name=reward``, which tells the cost only, and with it
``--config.objective.limit=6e7``.  ``FILE:evolution`` is regularized evolution in place
of the policy.  500 architectures, a minute on two cores; of the data set only the size
of its images counts.

Expected: see the README, "Cost in the objective".
"""

from ml_collections import ConfigDict

from configs.common import base


def get_config(arg: str = "") -> ConfigDict:
    """The config; `arg` is "" or "evolution"."""
    if arg not in ("", "evolution"):
        raise ValueError(f"unknown config argument {arg!r}; known: evolution")
    config = base()
    config.data.update(name="cifar10", validation=5000)
    config.space.update(name="nasbench201")
    config.evaluator = ConfigDict({"name": "tabular", "table": "", "reward": "cifar10"})
    policy = {"name": "reinforce", "learning_rate": 0.01, "baseline_decay": 0.9}
    policy["policy"] = {"hidden": 32}
    evolution = {"name": "regularized_evolution", "population": 20, "sample": 10}
    config.strategy = ConfigDict(evolution if arg else policy)
    config.schedule.update(child_steps=0, policy_steps=50, samples=1)
    config.objective.update(
        name="weighted_product", form="hard", cost="macs", target=6e7
    )
    config.train.update(rounds=10)
    return config
