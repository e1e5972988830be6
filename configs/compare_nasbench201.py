"""All strategies on NAS-Bench-201's table, 500 seeds each.

    python -m launch.compare --config=configs/compare_nasbench201.py \
        --config.table=nasbench201_table.npz --workdir=runs/compare

The published protocol: searches see the 12-epoch validation accuracy on CIFAR-10 for
12,000 simulated seconds, about 109 random evaluations; reported is the 200-epoch test
accuracy of what they found, on three data sets.  With ``FILE:own`` each data set has
searches of its own, on its own 12-epoch accuracy, of 100 evaluations.

Settings were chosen by searches on CIFAR-100 alone, with other seeds.

Dong and Yang 2020, https://arxiv.org/abs/2001.00326.
"""

from ml_collections import ConfigDict


def get_config(arg: str = "") -> ConfigDict:
    """The config; `arg` is "" or "own"."""
    if arg not in ("", "own"):
        raise ValueError(f"unknown config argument {arg!r}; known: own")
    budget = {"evaluations": 100} if arg else {"seconds": 12000.0}
    return ConfigDict(
        {
            "table": "",
            "space": {"name": "nasbench201", "classes": 10},
            "reward": "own" if arg else "cifar10",
            "seconds": None,
            "evaluations": None,
            "seeds": 500,
            "seed": 0,
            "nan": "refuse",
            "strategies": {
                "random": {"name": "random_search"},
                "local": {"name": "local_search"},
                "evolution": {
                    "name": "regularized_evolution",
                    "population": 20,
                    "sample": 10,
                    "identity": 0.0,
                },
                "genetic": {
                    "name": "genetic",
                    "population": 10,
                    "flip": 0.3,
                    "crossing": 0.5,
                    "exchange": 0.5,
                },
                "reinforce": {
                    "name": "reinforce",
                    "learning_rate": 0.01,
                    "baseline_decay": 0.9,
                    "policy": {"hidden": 32},
                },
                "ppo": {
                    "name": "ppo",
                    "learning_rate": 0.01,
                    "baseline_decay": 0.9,
                    "policy": {"hidden": 32},
                    "samples": 5,
                },
                "progressive": {
                    "name": "progressive",
                    "surrogate": "linear",
                    "surrogate_options": {"ridge": 0.1, "explore": 0.8},
                    "first": 30,
                    "beam": 1,
                    "capacity": 128,
                },
            },
        }
        | budget
    )
