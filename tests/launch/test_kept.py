"""Arrays under a fingerprint: what is damaged, or of something else, is told."""

import numpy as np
import pytest
from etils import epath

from launch.command import UserError
from launch.kept import Kept


@pytest.fixture
def kept(tmp_path):
    kept = Kept(epath.Path(tmp_path) / "a.npz", "this")
    assert kept.read() is None
    kept.write(values=np.arange(100.0) ** 2)
    return kept


def test_arrays_come_back(kept):
    np.testing.assert_array_equal(kept.read()["values"], np.arange(100.0) ** 2)
    with pytest.raises(UserError, match="a.npz is of other seeds or settings"):
        Kept(kept.path, "that").read()


def flipped(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :]


@pytest.mark.parametrize(
    "damage", [lambda content: b"", lambda content: content[:100], flipped]
)
def test_whatever_is_damaged_is_told_in_one_line(kept, damage):
    kept.path.write_bytes(damage(kept.path.read_bytes()))
    with pytest.raises(UserError, match="a.npz is damaged; remove it to begin anew"):
        kept.read()
