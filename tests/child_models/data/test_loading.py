import numpy as np
import pytest

from child_models.data import load

FIELDS = ("x_train", "y_train", "x_test", "y_test")


def arrays(*, train=40, test=10, size=6, channels=3, classes=4, seed=0):
    rng = np.random.default_rng(seed)
    fields = {}
    for part, count in (("train", train), ("test", test)):
        fields[f"x_{part}"] = rng.integers(
            0, 256, (count, size, size, channels), dtype=np.uint8
        )
        fields[f"y_{part}"] = np.arange(count) % classes
    return fields


@pytest.fixture
def saved(tmp_path):
    """``(**fields) -> name`` of a data set in an npz file."""

    def save(**fields):
        path = tmp_path / "set.npz"
        np.savez(path, **fields)
        return f"npz:{path}"

    return save


def rows(split):
    """A split as a set of its images and labels."""
    pairs = zip(split.images, split.labels.tolist(), strict=True)
    return {(image.tobytes(), label) for image, label in pairs}


# ---- splits -------------------------------------------------------------------------


@pytest.mark.parametrize(("validation", "count"), [(10, 10), (0.25, 10), (0.4, 16)])
def test_validation_is_carved_from_train(saved, validation, count):
    fields = arrays()
    data = load(saved(**fields), validation=validation, seed=0)
    assert len(data.validation.labels) == count
    assert len(data.train.labels) == 40 - count
    assert not rows(data.train) & rows(data.validation)
    pairs = zip(fields["x_train"], fields["y_train"].tolist(), strict=True)
    together = {(image.tobytes(), label) for image, label in pairs}
    assert rows(data.train) | rows(data.validation) == together
    np.testing.assert_array_equal(data.test.images, fields["x_test"])
    assert data.classes == 4
    assert data.train.images.dtype == np.uint8 and data.train.labels.dtype == np.int32


def test_the_split_depends_on_the_seed_and_not_on_the_class(saved):
    fields = arrays(train=400, size=2)
    name = saved(**fields)
    first, again, other = (load(name, validation=100, seed=s) for s in (0, 0, 1))
    assert rows(first.validation) == rows(again.validation)
    assert rows(first.validation) != rows(other.validation)
    relabelled = saved(**fields | {"y_train": np.zeros(400, int), "y_test": [0] * 10})
    with pytest.raises(ValueError, match="has one class"):
        load(relabelled, validation=100, seed=0)
    reversed_labels = saved(**fields | {"y_train": 3 - fields["y_train"]})
    images = load(reversed_labels, validation=100, seed=0).validation.images
    np.testing.assert_array_equal(images, first.validation.images)


def test_validation_of_the_file_is_used_instead(saved):
    fields = arrays()
    extra = {"x_val": fields["x_test"] ^ 1, "y_val": fields["y_test"]}
    data = load(saved(**fields, **extra), validation=0.5, seed=0)
    np.testing.assert_array_equal(data.validation.images, extra["x_val"])
    np.testing.assert_array_equal(data.train.images, fields["x_train"])


def test_limits_take_part_of_a_shuffle(saved):
    name = saved(**arrays())
    whole = load(name, validation=8, seed=3)
    part = load(name, validation=8, seed=3, train_limit=20, test_limit=4)
    assert len(part.train.labels) == 12 and len(part.validation.labels) == 8
    assert len(part.test.labels) == 4
    everything = rows(whole.train) | rows(whole.validation)
    assert rows(part.train) | rows(part.validation) <= everything
    assert rows(part.test) < rows(whole.test)
    assert part.classes == whole.classes


def test_moments_are_of_the_train_split(saved):
    data = load(saved(**arrays()), validation=10, seed=0)
    scaled = data.train.images / 255
    np.testing.assert_allclose(data.mean, scaled.mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(data.std, scaled.std((0, 1, 2)), rtol=1e-6)
    assert data.mean.dtype == data.std.dtype == np.float32


def test_a_constant_channel_has_a_deviation_of_one_grey_level(saved):
    fields = arrays()
    fields["x_train"][..., 1] = 51
    data = load(saved(**fields), validation=10, seed=0)
    assert data.mean[1] == pytest.approx(0.2)
    assert data.std[1] == pytest.approx(1 / 255)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"validation": 40}, "validation is 40, that is 40 of 40 training images"),
        ({"validation": 0}, "validation is 0, that is 0 of 40"),
        ({"validation": 1.0}, "validation is 1.0; a share must be between 0 and 1"),
        ({"validation": 0.001}, "validation is 0.001, that is 0 of 40"),
        ({"validation": 20, "train_limit": 20}, "that is 20 of 20 training images"),
        ({"train_limit": 41}, "train_limit is 41; the split has 40 images"),
        ({"test_limit": 0}, "test_limit is 0; the split has 10 images"),
        ({"seed": -1}, "seed is -1; it must be 0 or more"),
        ({"image_size": 8}, "image_size does not apply to npz:"),
    ],
)
def test_arguments_that_do_not_fit(saved, arguments, message):
    with pytest.raises(ValueError, match=message):
        load(saved(**arrays()), **{"validation": 10, "seed": 0} | arguments)


def test_unknown_prefixes_list_the_known_ones():
    with pytest.raises(ValueError, match="data set 'npy:x'; known: digits, .*npz"):
        load("npy:x", validation=1, seed=0)


# ---- malformed files ----------------------------------------------------------------


def wrong(**changes):
    return {**arrays(), **changes}


LABELS = arrays()["y_train"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (wrong(x_train=np.zeros((40, 6))), "x_train of .* has dtype float64;.*uint8"),
        (
            wrong(x_train=np.zeros((40, 6), np.uint8)),
            r"x_train of .* has shape \(40, 6\); images must be \[N, H, W, C\]",
        ),
        (wrong(y_train=LABELS / 1), "y_train of .* has dtype float64 .*integers"),
        (wrong(y_train=np.eye(40, dtype=int)), r"y_train .* shape \(40, 40\)"),
        (wrong(y_train=LABELS[:-1]), "x_train of .* has 40 images, .* 39 labels"),
        (wrong(y_train=LABELS - 1), "label -1 in the train split of .* 0 to 2"),
        (wrong(y_train=LABELS + 100), "largest label of .* is 103, .* only 40 images"),
        (
            wrong(y_test=np.full(10, 4)),
            "label 4 in the test split of .* is out of range; labels are 0 to 3",
        ),
        (
            wrong(x_test=np.zeros((10, 5, 6, 3), np.uint8)),
            r"images of the test split .* \(5, 6, 3\), those of train \(6, 6, 3\)",
        ),
        (
            wrong(x_test=np.zeros((0, 6, 6, 3), np.uint8), y_test=np.zeros(0, int)),
            "the test split of .* has no images",
        ),
        (wrong(x_val=arrays()["x_test"]), "has no y_val; it has x_train, y_train"),
        (wrong(x_train=np.array([object()])), "not a readable npz file"),
    ],
)
def test_malformed_arrays_are_named(saved, fields, message):
    with pytest.raises(ValueError, match=message):
        load(saved(**fields), validation=10, seed=0)


@pytest.mark.parametrize("missing", FIELDS)
def test_missing_fields_are_named_with_those_found(saved, missing):
    fields = {key: value for key, value in arrays().items() if key != missing}
    message = f"has no {missing}; it has {', '.join(fields)}"
    with pytest.raises(ValueError, match=message):
        load(saved(**fields), validation=10, seed=0)


def test_absent_and_foreign_files(tmp_path):
    with pytest.raises(ValueError, match="no file '.*none.npz'"):
        load(f"npz:{tmp_path}/none.npz", validation=10, seed=0)
    for content in (b"", b"no archive", b"PK\x03\x04cut off"):
        (tmp_path / "set.npz").write_bytes(content)
        with pytest.raises(ValueError, match="not a readable npz file"):
            load(f"npz:{tmp_path}/set.npz", validation=10, seed=0)


def test_a_single_array_is_no_npz_file(tmp_path):
    np.save(tmp_path / "set.npy", np.zeros(3))
    with pytest.raises(ValueError, match="not a readable npz file"):
        load(f"npz:{tmp_path}/set.npy", validation=10, seed=0)


def test_grey_images_and_column_labels_are_accepted(saved):
    fields = arrays()
    data = load(
        saved(
            x_train=fields["x_train"][..., 0],
            y_train=fields["y_train"][:, None].astype(np.uint8),
            x_test=fields["x_test"][..., 0],
            y_test=fields["y_test"],
        ),
        validation=10,
        seed=0,
    )
    assert data.train.images.shape == (30, 6, 6, 1)
    assert data.train.labels.shape == (30,) and data.mean.shape == (1,)


@pytest.mark.data
def test_real_images(data_file, tmp_path):
    # One file of real uint8 images that is not in our format: its fields are named.
    path = data_file("omniglot_small_28.npz")
    with pytest.raises(ValueError, match="has no x_train.*it has x, char_id"):
        load(f"npz:{path}", validation=10, seed=0)
    with np.load(path) as archive:
        images, labels = archive["x"], archive["char_id"].astype(np.int64)
    held_out = np.arange(len(labels)) % 20 == 0
    np.savez(
        tmp_path / "omniglot.npz",
        x_train=images[~held_out],
        y_train=labels[~held_out],
        x_test=images[held_out],
        y_test=labels[held_out],
    )
    data = load(f"npz:{tmp_path}/omniglot.npz", validation=0.1, seed=0)
    assert data.classes == 242 and data.train.images.shape[1:] == (28, 28, 1)
