"""Reads data sets of `tensorflow_datasets` without TensorFlow.

TFDS writes a data set once to a folder ("prepares" it) and reads it from there through
`as_data_source`, which needs no TensorFlow.  Preparing needs it for the builders that
hand over arrays; our own `Digits` hands over encoded images and does not.
"""

import contextlib
import difflib
import importlib.util
import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from absl import logging
from PIL import Image
from sklearn.datasets import load_digits

from child_models.data.sources import Source, as_split, resized
from child_models.types import Split


class Digits(tfds.core.GeneratorBasedBuilder):
    """scikit-learn's handwritten digits: 1,797 grey images of 8x8, 10 classes.

    The 17 levels of the original are spread over 0 to 255.  360 images, drawn at random
    once and for all, are the test split.
    """

    VERSION = tfds.core.Version("1.0.0")
    TEST_SIZE = 360

    def _info(self) -> tfds.core.DatasetInfo:
        features = tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(shape=(8, 8, 1), encoding_format="png"),
                "label": tfds.features.ClassLabel(num_classes=10),
            }
        )
        return tfds.core.DatasetInfo(
            builder=self,
            features=features,
            supervised_keys=("image", "label"),
            homepage="https://archive.ics.uci.edu/dataset/80",
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager):
        digits = load_digits()
        order = np.random.default_rng(0).permutation(len(digits.target))
        return {
            "train": self._generate_examples(digits, order[self.TEST_SIZE :]),
            "test": self._generate_examples(digits, order[: self.TEST_SIZE]),
        }

    def _generate_examples(self, digits, indices: np.ndarray):
        levels = np.round(digits.images * (255 / 16)).astype(np.uint8)
        for index in indices.tolist():
            png = io.BytesIO()
            Image.fromarray(levels[index]).save(png, "PNG")
            label = int(digits.target[index])
            yield index, {"image": png.getvalue(), "label": label}


def read_prepared(
    name: str, *, data_dir: str | None = None, image_size: int | None = None
) -> Source:
    """Reads a data set by its TFDS name, e.g. ``cifar10`` or ``name/config``.

    Args:
      name: ``digits`` or a name of TFDS.  Its train split and its test split, or
        "validation" where it has no test, are read.
      data_dir: where data sets are kept; by default TFDS's own folder, and the user's
        cache for digits.
      image_size: side to which every image is resized, or None to keep their sizes.

    Raises:
      ValueError: if there is no such data set, it is not of labelled images, it has to
        be prepared with TensorFlow and that is absent, or the images' sizes differ.
    """
    builder = _prepare(name, data_dir)
    parts = builder.info.splits
    test = "validation" if "validation" in parts and "test" not in parts else "test"
    classes = builder.info.features["label"].num_classes
    read = [_read_split(builder, name, part, image_size) for part in ("train", test)]
    return Source(*read, classes=classes)


def prepared_shape(
    name: str, *, data_dir: str | None = None
) -> tuple[tuple[int | None, ...], int]:
    """Shape of the images of a data set, None where it varies, and number of classes.

    Nothing is prepared or read.

    Raises:
      ValueError: if there is no such data set, or it is not of labelled images.
    """
    builder = _make_builder(name, data_dir)
    _check_features(builder, name)
    features = builder.info.features
    return tuple(features["image"].shape), features["label"].num_classes


def _make_builder(name: str, data_dir: str | None) -> tfds.core.DatasetBuilder:
    if name == "digits":
        return Digits(data_dir=data_dir or str(cache_folder()))
    try:
        with _quiet():
            return tfds.builder(name, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError as error:
        known = tfds.list_builders(with_community_datasets=False)
        near = difflib.get_close_matches(name, known, 3)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise ValueError(
            f"unknown data set {name!r}; {hint}known: {len(known)} names of"
            " tensorflow_datasets, digits, npz:PATH, folder:PATH"
        ) from error
    except ImportError as error:
        raise ValueError(
            f"data set {name!r} cannot be read without another package, probably"
            " TensorFlow: pip install -e '.[tensorflow]'"
        ) from error
    except ValueError as error:  # of an unknown config or version, over many lines
        text = " ".join(str(error).split())
        raise ValueError(f"data set {name!r}: {text}") from error


def cache_folder() -> Path:
    """The project's folder in the user's cache."""
    if sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return base / "cellwright"


def _prepare(name: str, data_dir: str | None) -> tfds.core.DatasetBuilder:
    """The builder of a data set that is on disk, after putting it there if need be."""
    builder = _make_builder(name, data_dir)
    _check_features(builder, name)
    with _quiet():
        if builder.is_prepared():
            return builder
    if name != "digits" and importlib.util.find_spec("tensorflow") is None:
        raise ValueError(
            f"data set {name!r} is not in {builder.data_dir} yet; TensorFlow is needed"
            " once to put it there: pip install -e '.[tensorflow]' and run again"
        )
    try:
        with _quiet() if name == "digits" else contextlib.nullcontext():
            builder.download_and_prepare(file_format="array_record")
    except OSError:
        # Another process may have been first; TFDS moves the finished folder in one go.
        if not _make_builder(name, data_dir).is_prepared():
            raise
    return _make_builder(name, data_dir)  # reads sizes of splits anew


def _check_features(builder: tfds.core.DatasetBuilder, name: str) -> None:
    features = builder.info.features
    kinds = {"image": tfds.features.Image, "label": tfds.features.ClassLabel}
    for key, kind in kinds.items():
        if key not in features or not isinstance(features[key], kind):
            raise ValueError(
                f"data set {name!r} is not of labelled images: it needs the features"
                f" image and label, and has {', '.join(features)}"
            )


def _read_split(
    builder: tfds.core.DatasetBuilder, name: str, part: str, image_size: int | None
) -> Split:
    try:
        with _quiet():
            source = builder.as_data_source(split=part)
            pairs = [(example["image"], int(example["label"])) for example in source]
    except (KeyError, NotImplementedError, ValueError) as error:
        text = " ".join(str(error).split())
        raise ValueError(f"cannot read the {part} split of {name!r}: {text}") from error
    if image_size is not None:
        pairs = [(_resize(image, image_size), label) for image, label in pairs]
    shapes = {image.shape for image, _ in pairs}
    if len(shapes) > 1:
        raise ValueError(
            f"images of {name!r} have {len(shapes)} sizes; give image_size to resize"
        )
    images = np.stack([image for image, _ in pairs])
    labels = np.array([label for _, label in pairs])
    return as_split(images, labels, (f"image of {name}", f"label of {name}"))


def _resize(image: np.ndarray, image_size: int) -> np.ndarray:
    grey = image.shape[-1] == 1
    picture = Image.fromarray(image[..., 0] if grey else image)
    array = resized(picture, image_size)
    return array[..., None] if grey else array


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences TFDS's progress bars and its advice to install OpenCV."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    output = io.StringIO()
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            yield
    finally:
        logging.set_verbosity(verbosity)
