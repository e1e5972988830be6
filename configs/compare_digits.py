"""Strategies on the table of digits that `table_digits` makes, 500 seeds each.

    python -m launch.compare --config=configs/compare_digits.py \
        --config.table=table_digits.npz --workdir=runs/compare

Every search trains ten of the 27 cells; reported is the test accuracy of the one found.
Expected: means of 95.9 to 96.2; the best cell has 96.85, that of the best reward 96.39.
"""

from ml_collections import ConfigDict

from configs.table_digits import SPACE


def get_config(arg: str = "") -> ConfigDict:
    """The config; there is no argument."""
    if arg:
        raise ValueError(f"unknown config argument {arg!r}; there is none")
    return ConfigDict(
        {
            "table": "",
            "space": SPACE | {"classes": 10},
            "reward": "digits",
            "seconds": None,
            "evaluations": 10,
            "seeds": 500,
            "seed": 0,
            "nan": "mask",
            "strategies": {
                "random": {"name": "random_search"},
                "local": {"name": "local_search"},
                "evolution": {
                    "name": "regularized_evolution",
                    "population": 5,
                    "sample": 3,
                    "identity": 0.0,
                },
            },
        }
    )
