"""Reads images and labels from the user's own files."""

import zipfile
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from child_models.types import Split

# Of a folder without a test split; fixed, so that test does not move with a seed.
_TEST_SHARE = 0.2
_TEST_SEED = 0

_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm")


class Source(NamedTuple):
    """What a reader returns; labels are of any integer type and not yet range-checked.

    Attributes:
      train, test: images and labels.
      validation: the source's own, or None to carve it from train.
      classes: number of classes, or None to infer it from the labels of train.
    """

    train: Split
    test: Split
    validation: Split | None = None
    classes: int | None = None


def as_split(images: np.ndarray, labels: np.ndarray, names: tuple[str, str]) -> Split:
    """Checks rank, type and length of arrays.

    Args:
      images: uint8[N, H, W, C], or uint8[N, H, W] for grey images.
      labels: integers [N] or [N, 1].
      names: what images and labels are called in messages.

    Returns:
      images uint8[N, H, W, C], labels [N].

    Raises:
      ValueError: on another rank or type, or where the lengths differ.
    """
    if images.dtype != np.uint8:
        raise ValueError(f"{names[0]} has dtype {images.dtype}; images must be uint8")
    if images.ndim not in (3, 4):
        raise ValueError(
            f"{names[0]} has shape {images.shape}; images must be [N, H, W, C] or"
            " [N, H, W]"
        )
    if images.ndim == 3:
        images = images[..., None]
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"{names[1]} has dtype {labels.dtype} and shape {labels.shape}; labels must"
            " be integers [N]"
        )
    if len(images) != len(labels):
        raise ValueError(
            f"{names[0]} has {len(images)} images, {names[1]} {len(labels)} labels;"
            " there must be one an image"
        )
    return Split(images, labels)


# ---- npz ----------------------------------------------------------------------------


def read_npz(path: str) -> Source:
    """Reads ``x_train y_train [x_val y_val] x_test y_test`` from an npz file.

    Args:
      path: of the file; ``~`` is the home folder.

    Raises:
      ValueError: if the file is absent or no npz file, fields are missing, or an array
        has another rank, type or length.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise ValueError(f"no file {path!r}; npz: needs the path of an npz file")
    fields = _read_fields(file)
    _check_names(path, fields)

    def split(part: str) -> Split:
        names = (f"x_{part}", f"y_{part}")
        labelled = (f"{names[0]} of {path}", f"{names[1]} of {path}")
        return as_split(fields[names[0]], fields[names[1]], labelled)

    validation = split("val") if "x_val" in fields else None
    return Source(split("train"), split("test"), validation)


def _read_fields(file: Path) -> dict[str, np.ndarray]:
    try:
        if not zipfile.is_zipfile(file):
            raise ValueError("it is no zip archive, or was cut off")
        with np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        text = f"{str(file)!r} is not a readable npz file: {error}"
        raise ValueError(text) from error


def _check_names(path: str, found: Collection[str]) -> None:
    wanted = ["x_train", "y_train", "x_test", "y_test"]
    if "x_val" in found or "y_val" in found:
        wanted += ["x_val", "y_val"]
    if missing := [name for name in wanted if name not in found]:
        raise ValueError(
            f"{path!r} has no {', '.join(missing)}; it has"
            f" {', '.join(found) or 'nothing'}"
        )


# ---- folder -------------------------------------------------------------------------


def read_folder(path: str, *, image_size: int | None = None) -> Source:
    """Reads images from one folder a class.

    Either ``PATH/train/CLASS/*`` and ``PATH/test/CLASS/*``, or ``PATH/CLASS/*``, of
    which a fixed random 20 % become test.  Classes are numbered in alphabetical order.
    Images are grey if all files are, else RGB.

    Args:
      path: of the folder; ``~`` is the home folder.
      image_size: side to which every image is resized, or None to keep their sizes.

    Raises:
      ValueError: if there is no such folder, a class has no images, a file is no image,
        or sizes differ and `image_size` is None.
    """
    root = Path(path).expanduser()
    if not root.is_dir():
        raise ValueError(f"no folder {path!r}; folder: needs one with a folder a class")
    halves = [half for half in ("train", "test") if (root / half).is_dir()]
    if len(halves) == 1:
        raise ValueError(f"{path!r} has {halves[0]} alone; it must have train and test")
    classes = _class_names(root / "train" if halves else root)
    if halves:
        if unknown := set(_class_names(root / "test")) - set(classes):
            raise ValueError(
                f"{path!r} has test images of {', '.join(sorted(unknown))}, but no"
                " training images of them"
            )
        train = _list_images(root / "train", classes)
        test = _list_images(root / "test", _class_names(root / "test"))
    else:
        train, test = _split_off_test(_list_images(root, classes))
    numbers = {name: number for number, name in enumerate(classes)}
    images = _read_images(train + test, image_size)
    labels = np.array([numbers[file.parent.name] for file in train + test])
    cut = len(train)
    return Source(
        Split(images[:cut], labels[:cut]),
        Split(images[cut:], labels[cut:]),
        classes=len(classes),
    )


def _class_names(folder: Path) -> list[str]:
    children = sorted(folder.iterdir())
    names = [f.name for f in children if f.is_dir() and not f.name.startswith(".")]
    if not names:
        raise ValueError(f"{str(folder)!r} has no folders; there must be one a class")
    return names


def _list_images(folder: Path, classes: Sequence[str]) -> list[Path]:
    files = []
    for name in classes:
        found = sorted(
            file
            for file in (folder / name).iterdir()
            if file.suffix.lower() in _SUFFIXES and not file.name.startswith(".")
        )
        if not found:
            raise ValueError(
                f"{str(folder / name)!r} has no images; known: {', '.join(_SUFFIXES)}"
            )
        files += found
    return files


def _split_off_test(files: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    order = np.random.default_rng(_TEST_SEED).permutation(len(files))
    count = round(_TEST_SHARE * len(files))
    train, test = np.sort(order[count:]), np.sort(order[:count])
    return [files[i] for i in train], [files[i] for i in test]


def _read_images(files: Sequence[Path], image_size: int | None) -> np.ndarray:
    """uint8[N, H, W, 1 or 3] of image files."""
    images = []
    for file in files:
        try:
            with Image.open(file) as image:
                mode = "L" if image.mode in ("1", "L", "LA") else "RGB"
                images.append(resized(image.convert(mode), image_size))
        except (UnidentifiedImageError, OSError) as error:
            raise ValueError(f"{str(file)!r} is not a readable image") from error
    if len({image.ndim for image in images}) > 1:
        images = [i if i.ndim == 3 else np.stack([i] * 3, axis=-1) for i in images]
    shapes = [image.shape[:2] for image in images]
    for file, shape in zip(files, shapes, strict=True):
        if shape != shapes[0]:
            raise ValueError(
                f"{str(file)!r} is {shape[0]}x{shape[1]}, {str(files[0])!r}"
                f" {shapes[0][0]}x{shapes[0][1]}; give image_size to resize them"
            )
    stacked = np.stack(images)
    return stacked if stacked.ndim == 4 else stacked[..., None]


def resized(image: Image.Image, image_size: int | None) -> np.ndarray:
    """uint8[H, W] or [H, W, 3] of a picture, made a square of side `image_size`."""
    if image_size is not None and image.size != (image_size, image_size):
        image = image.resize((image_size, image_size), Image.Resampling.BILINEAR)
    return np.asarray(image, np.uint8)
