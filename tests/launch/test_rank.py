"""Ranking: what is no table of architectures."""

from types import SimpleNamespace

import numpy as np
import pytest

from controller.spec import Decision, DecisionSpec
from launch.command import UserError
from launch.rank import rank, read_columns


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


def test_an_architecture_that_the_table_lacks_is_named():
    spec = DecisionSpec((Decision("op", ("left", "right"), "op"),))
    search = SimpleNamespace(space=SimpleNamespace(spec=spec))
    table = {"ops": np.zeros((1, 1), int), "a": np.ones(1)}
    with pytest.raises(UserError, match="1 rows lack the architecture .*right"):
        rank(search, None, table, (1,), value="a", params="a", n=2, scored=1)
