"""Ranking: what is no table of architectures."""

import numpy as np
import pytest

from launch.command import UserError
from launch.rank import read_columns


def test_the_named_columns_are_read(tmp_path):
    np.savez(tmp_path / "t.npz", ops=np.zeros((2, 3)), a=np.ones(2), b=np.zeros(2))
    assert set(read_columns(f"{tmp_path}/t.npz", ("a",))) == {"ops", "a"}
    with pytest.raises(UserError, match="no column 'c'; it has ops, a, b"):
        read_columns(f"{tmp_path}/t.npz", ("a", "c"))


@pytest.mark.parametrize("content", [b"# Text\n", b"\x93NUMPY", b""])
def test_another_file_is_no_table(tmp_path, content):
    (tmp_path / "t.npz").write_bytes(content)
    with pytest.raises(UserError, match="t.npz is no npz file"):
        read_columns(f"{tmp_path}/t.npz", ("a",))
