"""Loads a data set by name and carves its validation split from train.

Names: ``digits``, any name of `tensorflow_datasets`, ``npz:PATH`` and ``folder:PATH``.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from child_models.data.sources import Source, read_folder, read_npz
from child_models.types import Dataset, Split


def load(
    name: str,
    *,
    validation: int | float,
    seed: int,
    data_dir: str | None = None,
    train_limit: int | None = None,
    test_limit: int | None = None,
    image_size: int | None = None,
) -> Dataset:
    """Loads a data set into memory.

    The training images are shuffled with the seed and cut to `train_limit`; a random
    part of them, whatever their class, becomes the validation split.  A source that
    brings its own validation images (``x_val`` of an npz file) keeps them instead.

    Args:
      name: ``digits``, a name of tensorflow_datasets, ``npz:PATH`` or ``folder:PATH``.
      validation: how many training images to hold out; an int is a count, a float in
        (0, 1) a share.
      seed: of the shuffles.
      data_dir: where data sets of tensorflow_datasets are, or are put; by default its
        own folder, and the user's cache for digits.
      train_limit: images of train to keep, validation included; all by default.
      test_limit: images of test to keep; all by default.
      image_size: side to which images are resized; by default they stay as they are.
        Not for npz.

    Returns:
      the data set, images uint8[N, H, W, C].

    Raises:
      ValueError: if the data set is unknown, absent or malformed, or an argument does
        not fit it.
    """
    for argument, value in (("seed", seed), ("image_size", image_size)):
        least = 0 if argument == "seed" else 1
        if value is not None and value < least:
            raise ValueError(f"{argument} is {value}; it must be {least} or more")
    source = _read(name, data_dir, image_size)
    classes = _check(name, source)
    train = _limit(source.train, train_limit, (seed, 0), "train_limit")
    test = _limit(source.test, test_limit, (seed, 1), "test_limit")
    if source.validation is None:
        train, held_out = _carve(train, validation, (seed, 2))
    else:
        held_out = source.validation
    mean, std = _moments(train.images)
    return Dataset(name, train, held_out, test, classes, mean, std)


def image_shape(
    name: str,
    *,
    data_dir: str | None = None,
    image_size: int | None = None,
    **others: Any,
) -> tuple[tuple[int, int, int], int]:
    """Shape (H, W, C) of the images of a data set, and its number of classes.

    Files of the user's are read, other data sets need not be there.

    Args:
      name, data_dir, image_size: as of `load`.
      **others: the other arguments of `load`.

    Raises:
      ValueError: as `load`; and if the images' sizes vary.
    """
    if ":" in name:
        data = load(name, data_dir=data_dir, image_size=image_size, **others)
        return data.train.images.shape[1:], data.classes
    from child_models.data.prepared import prepared_shape

    shape, classes = prepared_shape(name, data_dir=data_dir)
    shape = shape if image_size is None else (image_size, image_size, shape[-1])
    if None in shape:
        raise ValueError(f"images of {name!r} vary in size; give image_size")
    return shape, classes


def _read(name: str, data_dir: str | None, image_size: int | None) -> Source:
    prefix, colon, path = name.partition(":")
    if prefix == "npz" and colon:
        if image_size is not None:
            raise ValueError("image_size does not apply to npz:; leave it out")
        return read_npz(path)
    if prefix == "folder" and colon:
        return read_folder(path, image_size=image_size)
    if colon:
        raise ValueError(
            f"unknown data set {name!r}; known: digits, a name of tensorflow_datasets,"
            " npz:PATH, folder:PATH"
        )
    # Importing tensorflow_datasets takes a second, which other sources need not pay.
    from child_models.data.prepared import read_prepared

    return read_prepared(name, data_dir=data_dir, image_size=image_size)


# ---- checks -------------------------------------------------------------------------


def _check(name: str, source: Source) -> int:
    """Returns the number of classes; raises ValueError where the splits do not fit."""
    splits: Mapping[str, Split | None] = {
        "train": source.train,
        "validation": source.validation,
        "test": source.test,
    }
    present = {key: split for key, split in splits.items() if split is not None}
    for key, split in present.items():
        if not len(split.labels):
            raise ValueError(f"the {key} split of {name} has no images")
    classes = source.classes or int(source.train.labels.max()) + 1
    if source.classes is None and classes > len(source.train.labels):
        raise ValueError(
            f"the largest label of {name} is {classes - 1}, but its train split has"
            f" only {len(source.train.labels)} images; labels count from 0"
        )
    shape = source.train.images.shape[1:]
    for key, split in present.items():
        low, high = split.labels.min(), split.labels.max()
        if low < 0 or high >= classes:
            raise ValueError(
                f"label {low if low < 0 else high} in the {key} split of {name} is out"
                f" of range; labels are 0 to {classes - 1}"
            )
        if split.images.shape[1:] != shape:
            raise ValueError(
                f"images of the {key} split of {name} have shape"
                f" {split.images.shape[1:]}, those of train {shape}; they must agree"
            )
    if classes < 2:
        raise ValueError(f"{name} has one class; classification needs 2 or more")
    return classes


# ---- splits -------------------------------------------------------------------------


def _take(split: Split, indices: np.ndarray) -> Split:
    return Split(split.images[indices], split.labels[indices].astype(np.int32))


def _order(split: Split, seed: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(seed).permutation(len(split.labels))


def _limit(split: Split, limit: int | None, seed: tuple[int, int], name: str) -> Split:
    """The first `limit` images of a shuffle; the split as it is where limit is None."""
    size = len(split.labels)
    if limit is None:
        return _take(split, np.arange(size))
    if not 1 <= limit <= size:
        raise ValueError(f"{name} is {limit}; the split has {size} images")
    return _take(split, _order(split, seed)[:limit])


def _carve(
    train: Split, validation: int | float, seed: tuple[int, int]
) -> tuple[Split, Split]:
    """Splits train into what is trained on and what is held out."""
    size = len(train.labels)
    share = isinstance(validation, float)
    count = round(validation * size) if share else validation
    if share and not 0 < validation < 1:
        raise ValueError(f"validation is {validation}; a share must be between 0 and 1")
    if not 1 <= count < size:
        raise ValueError(
            f"validation is {validation}, that is {count} of {size} training images; it"
            " must leave at least one image on either side"
        )
    order = _order(train, seed)
    return _take(train, order[count:]), _take(train, order[:count])


def _moments(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each channel, images scaled to [0, 1].

    A channel without variation gets the deviation of one grey level, not zero.
    """
    levels = np.arange(256) / 255
    means, stds = [], []
    for channel in range(images.shape[-1]):
        counts = np.bincount(images[..., channel].ravel(), minlength=256)
        share = counts / counts.sum()
        mean = share @ levels
        means.append(mean)
        stds.append(max(np.sqrt(share @ (levels - mean) ** 2), 1 / 255))
    return np.asarray(means, np.float32), np.asarray(stds, np.float32)
