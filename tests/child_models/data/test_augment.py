import jax
import jax.numpy as jnp
import numpy as np
import pytest

from child_models.data.augment import augmentation
from child_models.data.preprocess import preprocess
from child_models.types import Dataset, Split

# Every pixel has its own positive value, so that a window says where it came from.
IMAGES = 1 + jnp.arange(64 * 4 * 5 * 2, dtype=jnp.float32).reshape(64, 4, 5, 2)


def augmented(key=0, **arguments):
    augment = jax.jit(augmentation(**arguments))
    return np.asarray(augment(jax.random.key(key), IMAGES))


def test_nothing_by_default():
    np.testing.assert_array_equal(augmented(), IMAGES)


def test_pad_and_crop_takes_windows_of_the_padded_image():
    padded = np.pad(IMAGES, ((0, 0), (2, 2), (2, 2), (0, 0)))
    offsets = set()
    for image, source in zip(augmented(pad=2), padded, strict=True):
        found = [
            (row, column)
            for row in range(5)
            for column in range(5)
            if np.array_equal(source[row : row + 4, column : column + 5], image)
        ]
        assert len(found) == 1
        offsets |= set(found)
    assert (
        {row for row, _ in offsets}
        == {column for _, column in offsets}
        == set(range(5))
    )


def test_flip_mirrors_about_half_of_the_images():
    mirrored = 0
    for image, source in zip(augmented(flip=True), np.asarray(IMAGES), strict=True):
        is_mirrored = np.array_equal(image, source[:, ::-1])
        assert is_mirrored or np.array_equal(image, source)
        mirrored += is_mirrored
    assert 16 < mirrored < 48  # 4 deviations about 32


@pytest.mark.parametrize("side", [2, 3])
def test_cutout_zeroes_a_square_that_may_hang_over_the_border(side):
    gone = augmented(cutout=side) == 0
    np.testing.assert_array_equal(gone.any(axis=-1), gone.all(axis=-1))
    shapes = set()
    for mask in gone[..., 0]:
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        assert mask.sum() == len(rows) * len(columns)
        assert np.ptp(rows) == len(rows) - 1 and np.ptp(columns) == len(columns) - 1
        shapes.add((len(rows), len(columns)))
    assert max(shapes) == (side, side) and len(shapes) > 1
    assert gone[..., 0].any(axis=0).all()


def test_keys_decide():
    arguments = {"pad": 1, "flip": True, "cutout": 2}
    np.testing.assert_array_equal(augmented(1, **arguments), augmented(1, **arguments))
    assert not np.array_equal(augmented(1, **arguments), augmented(2, **arguments))


@pytest.mark.parametrize("name", ["pad", "cutout"])
def test_negative_pixels_are_refused(name):
    with pytest.raises(ValueError, match=f"{name} is -1; it must be 0 or more pixels"):
        augmentation(**{name: -1})


def test_preprocess_normalises_each_channel():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (8, 4, 4, 2), dtype=np.uint8)
    split = Split(images, np.zeros(8, np.int32))
    scaled = images / 255
    mean = scaled.mean((0, 1, 2)).astype(np.float32)
    std = scaled.std((0, 1, 2)).astype(np.float32)
    data = Dataset("made up", split, split, split, 2, mean, std)
    normalised = jax.jit(preprocess(data))(images)
    assert normalised.dtype == jnp.float32
    np.testing.assert_allclose(normalised.mean((0, 1, 2)), [0, 0], atol=1e-5)
    np.testing.assert_allclose(normalised.std((0, 1, 2)), [1, 1], rtol=1e-5)
    np.testing.assert_allclose(normalised, (scaled - mean) / std, atol=1e-5)
