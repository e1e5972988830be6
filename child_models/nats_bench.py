"""NAS-Bench-201's table from NATS-Bench's own files, through its package.

Dong et al. 2021, https://arxiv.org/abs/2009.00437; the package is the extra
``.[nats_bench]``, the files are ``NATS-tss-v1_0-3ffb9-simple`` or its pickle.
"""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from child_models.tables import Table
from controller.spec import DecisionSpec

# name of ours: (data set of the search signal, of the reported value)
DATASETS = {
    "cifar10": ("cifar10-valid", "cifar10"),
    "cifar100": ("cifar100", "cifar100"),
    "imagenet16": ("ImageNet16-120", "ImageNet16-120"),
}


def open_api(path: str | os.PathLike) -> Any:
    """The package's API of a folder or pickle.

    Raises:
      ValueError: if the package is not installed or there is no such file.
    """
    try:
        from nats_bench import create
    except ModuleNotFoundError as error:
        raise ValueError(
            "NATS-Bench's files are read by its package: pip install -e '.[nats_bench]'"
        ) from error
    if not os.path.exists(path):
        raise ValueError(f"no file or folder {str(path)!r}")
    return create(str(path), "tss", fast_mode=os.path.isdir(path), verbose=False)


def from_nats_bench(api: Any, spec: DecisionSpec) -> Table:
    """The columns of `child_models.tables.from_nasbench201`, means over its trials.

    Costs are the seconds of training 12 epochs and one validation, as the package's
    ``simulate_train_eval`` counts them.

    Args:
      api: of the topology space.
      spec: of `nasbench201`.

    Raises:
      ValueError: if the archive lacks a result, with the first one that it lacks.
    """
    rows: list[tuple[int, ...]] = []
    columns: dict[str, dict[str, list[float]]] = {
        kind: {name: [] for name in DATASETS} for kind in ("reward", "value", "cost")
    }
    for index, text in enumerate(api.meta_archs):
        rows.append(spec.decode(text))
        for name, (search, report) in DATASETS.items():
            wanted = ("valid-accuracy", "train-all-time", "valid-per-time")
            accuracy, *seconds = _read(api, index, search, "12", wanted)
            (test,) = _read(api, index, report, "200", ("test-accuracy",))
            columns["reward"][name].append(accuracy)
            columns["value"][name].append(test)
            columns["cost"][name].append(sum(seconds))
        if hasattr(api, "clear_params"):
            api.clear_params(index)  # else every architecture stays in memory
    arrays = {
        kind: {name: np.asarray(values) for name, values in named.items()}
        for kind, named in columns.items()
    }
    return Table(np.asarray(rows), **arrays)


def _read(
    api: Any, index: int, dataset: str, epochs: str, names: Sequence[str]
) -> list[float]:
    """Results of one architecture, each a mean over its trials."""
    missing = ", ".join(names)
    try:
        info = api.get_more_info(index, dataset, hp=epochs, is_random=False)
        missing = ", ".join(name for name in names if name not in info)
        return [info[name] for name in names]
    except (AssertionError, KeyError, OSError, ValueError) as error:
        raise ValueError(
            f"the archive lacks {missing} of architecture {index} on {dataset} after "
            f"{epochs} epochs; take the whole one"
        ) from error
