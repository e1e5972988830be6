import numpy as np
import pytest
from PIL import Image

from child_models.data import load


def draw(path, level, *, size=(6, 6), mode="L"):
    path.parent.mkdir(parents=True, exist_ok=True)
    width, height = size
    pixels = np.full((height, width), level, np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)


@pytest.fixture
def split_folder(tmp_path):
    """train and test, classes cat (levels 0..) and dog (levels 100..), 5 and 2 each."""
    for part, count in (("train", 5), ("test", 2)):
        for start, name in ((100, "dog"), (0, "cat")):
            for i in range(count):
                draw(tmp_path / part / name / f"{i}.png", start + i)
    return tmp_path


def read(path, **arguments):
    return load(f"folder:{path}", **{"validation": 2, "seed": 0} | arguments)


def test_classes_are_numbered_in_alphabetical_order(split_folder):
    data = read(split_folder)
    assert data.classes == 2
    assert data.train.images.shape == (8, 6, 6, 1)
    for split in (data.train, data.validation, data.test):
        levels = split.images[:, 0, 0, 0]
        np.testing.assert_array_equal(split.labels, levels >= 100)
    assert data.test.labels.tolist() == [0, 0, 1, 1]


def test_a_fifth_becomes_test_where_there_is_no_split(tmp_path):
    for i in range(20):
        draw(tmp_path / "ab"[i % 2] / f"{i}.png", i)
    first, other = read(tmp_path, seed=0), read(tmp_path, seed=1)
    assert len(first.test.labels) == 4 and len(first.train.labels) == 14
    np.testing.assert_array_equal(first.test.images, other.test.images)
    levels = [s.images[:, 0, 0, 0] for s in (first.train, first.validation, first.test)]
    assert sorted(np.concatenate(levels).tolist()) == list(range(20))


def test_one_colour_image_makes_all_rgb(split_folder):
    draw(split_folder / "train" / "cat" / "9.jpg", 7, mode="RGB")
    images = read(split_folder).train.images
    assert images.shape == (9, 6, 6, 3)
    assert np.ptp(images, axis=-1).max() == 0


def test_sizes_must_agree_or_are_made_to(split_folder):
    draw(split_folder / "test" / "dog" / "9.png", 7, size=(5, 4))
    with pytest.raises(ValueError, match=r"dog/9.png' is 4x5, .* 6x6; give image_size"):
        read(split_folder)
    data = read(split_folder, image_size=8)
    assert data.train.images.shape == (8, 8, 8, 1)
    assert data.test.images[-1].tolist() == np.full((8, 8, 1), 7).tolist()


def test_other_files_are_left_out(split_folder):
    (split_folder / "train" / "cat" / "notes.txt").write_text("not an image")
    (split_folder / "train" / "cat" / ".hidden.png").write_text("not an image")
    (split_folder / "train" / ".git").mkdir()
    assert len(read(split_folder).train.labels) == 8


def test_what_is_wrong_is_named(split_folder):
    with pytest.raises(ValueError, match="no folder '.*nowhere'"):
        read(split_folder / "nowhere")
    with pytest.raises(ValueError, match="image_size is 0; it must be 1 or more"):
        read(split_folder, image_size=0)
    broken = split_folder / "train" / "cat" / "9.png"
    broken.write_bytes(b"no image")
    with pytest.raises(ValueError, match="cat/9.png' is not a readable image"):
        read(split_folder)
    broken.unlink()
    (split_folder / "test" / "emu").mkdir()
    with pytest.raises(ValueError, match="has test images of emu, but no training"):
        read(split_folder)
    (split_folder / "train" / "emu").mkdir()
    with pytest.raises(ValueError, match="emu' has no images; known: .png"):
        read(split_folder)


def test_half_a_split_and_no_classes_are_named(split_folder, tmp_path):
    (split_folder / "test").rename(split_folder / "other")
    with pytest.raises(ValueError, match="has train alone; it must have train and"):
        read(split_folder)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ValueError, match="empty' has no folders"):
        read(empty)
