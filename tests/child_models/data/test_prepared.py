import importlib.util

import numpy as np
import pytest
import tensorflow_datasets as tfds
from sklearn.datasets import load_digits

from child_models.data import load
from child_models.data.prepared import Digits


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A folder that digits were prepared into, and the data set as first read."""
    folder = tmp_path_factory.mktemp("tfds")
    return folder, load("digits", validation=0.2, seed=0, data_dir=str(folder))


# ---- digits -------------------------------------------------------------------------


def test_digits_are_those_of_scikit_learn(prepared):
    _, data = prepared
    sizes = [len(s.labels) for s in (data.train, data.validation, data.test)]
    assert sizes == [1150, 287, 360] and data.classes == 10
    splits = (data.train, data.validation, data.test)
    images = np.concatenate([split.images for split in splits])
    labels = np.concatenate([split.labels for split in splits]).tolist()
    assert images.shape == (1797, 8, 8, 1) and images.dtype == np.uint8
    assert images.max() == 255
    original = load_digits()
    levels = np.round(original.images * 255 / 16).astype(np.uint8)
    ours = sorted((image.tobytes(), n) for image, n in zip(images, labels, strict=True))
    pairs = zip(levels, original.target.tolist(), strict=True)
    assert ours == sorted((image.tobytes(), label) for image, label in pairs)


def test_digits_are_prepared_once_and_read_alike(prepared, monkeypatch):
    folder, data = prepared
    monkeypatch.setattr(Digits, "_generate_examples", None)
    again = load("digits", validation=0.2, seed=1, data_dir=str(folder))
    np.testing.assert_array_equal(again.test.images, data.test.images)
    np.testing.assert_array_equal(again.test.labels, data.test.labels)
    assert not np.array_equal(again.validation.images, data.validation.images)


def test_digits_go_to_the_users_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    load("digits", validation=100, seed=0)
    assert (tmp_path / "cellwright" / "digits" / "1.0.0").is_dir()


def test_a_race_to_prepare_is_won_by_either(prepared, tmp_path, monkeypatch):
    original = Digits.download_and_prepare

    def lose(self, **arguments):
        original(Digits(data_dir=str(tmp_path)), **arguments)  # the other process
        raise OSError("Directory not empty")

    monkeypatch.setattr(Digits, "download_and_prepare", lose)
    data = load("digits", validation=0.2, seed=0, data_dir=str(tmp_path))
    np.testing.assert_array_equal(data.train.images, prepared[1].train.images)


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path, monkeypatch):
    def fail(self, **arguments):
        raise OSError("Permission denied")

    monkeypatch.setattr(Digits, "download_and_prepare", fail)
    with pytest.raises(OSError, match="Permission denied"):
        load("digits", validation=0.2, seed=0, data_dir=str(tmp_path))


def test_digits_can_be_resized(prepared):
    data = load(
        "digits", validation=0.2, seed=0, data_dir=str(prepared[0]), image_size=12
    )
    assert data.train.images.shape == (1150, 12, 12, 1)


# ---- other names of TFDS ------------------------------------------------------------


@pytest.fixture
def mocked(monkeypatch):
    """TFDS that makes up 20 images a split, as if every set were prepared."""
    monkeypatch.setattr(tfds.core.DatasetBuilder, "is_prepared", lambda self: True)
    with tfds.testing.mock_data(num_examples=20):
        yield


def test_cifar10(mocked):
    data = load("cifar10", validation=5, seed=0, test_limit=8)
    assert data.classes == 10
    assert data.train.images.shape == (15, 32, 32, 3)
    assert data.validation.images.shape == (5, 32, 32, 3)
    assert data.test.images.shape == (8, 32, 32, 3)
    assert data.train.images.dtype == np.uint8 and data.train.labels.dtype == np.int32
    assert data.mean.shape == data.std.shape == (3,)


def test_sets_without_labelled_images_are_refused(mocked):
    with pytest.raises(
        ValueError, match="'shapes3d' is not of labelled images: .* has"
    ):
        load("shapes3d", validation=5, seed=0)


def test_unknown_names_come_with_close_ones():
    with pytest.raises(ValueError, match="'cifar1O'; did you mean cifar10 .*npz:PATH"):
        load("cifar1O", validation=5, seed=0)
    with pytest.raises(ValueError, match="'digit'; did you mean digits"):
        load("digit", validation=5, seed=0)


def test_unknown_configs_are_told_in_one_line(tmp_path):
    with pytest.raises(ValueError, match="^data set 'cifar10/nothing': .*$"):
        load("cifar10/nothing", validation=5, seed=0, data_dir=str(tmp_path))


def test_sets_that_are_not_prepared_say_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install -e '.\[tensorflow\]'"):
        load("cifar10", validation=5, seed=0, data_dir=str(tmp_path))
    assert list(tmp_path.iterdir()) == []
