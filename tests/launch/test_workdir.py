"""A workdir's files: what is damaged or not as the programs write it."""

import pytest

from launch.build import SECTIONS
from launch.command import UserError
from launch.workdir import (
    list_differences,
    read_commands,
    read_config,
    read_result,
    read_retrained,
    record_command,
    write_json,
)

CONFIG = {section: {} for section in SECTIONS}
RESULT = {
    "best": {"decisions": [0], "genotype": "", "reward": 0.5},
    "strategy": "reinforce",
    "budget": {"scored": 3},
    "config_sha256": "",
}


def test_files_come_back_or_are_absent(tmp_path):
    assert read_config(tmp_path) is None and read_result(tmp_path) is None
    write_json(tmp_path / "config.json", CONFIG)
    write_json(tmp_path / "result.json", RESULT)
    assert read_config(tmp_path) == CONFIG and read_result(tmp_path) == RESULT


@pytest.mark.parametrize(
    "read, name, content, text",
    [
        (read_config, "config", CONFIG | {"retrain": None}, None),
        (read_config, "config", [1], "no 'space'"),
        (read_config, "config", {k: {} for k in SECTIONS[:-2]}, "no 'retrain'"),
        (read_result, "result", RESULT | {"best": None}, "no 'decisions'"),
        (read_result, "result", {"strategy": "reinforce"}, "no 'best'"),
        (read_retrained, "retrain", [1], "no 'winner'"),
    ],
)
def test_a_missing_key_is_named(tmp_path, read, name, content, text):
    write_json(tmp_path / f"{name}.json", content)
    if text is None:
        assert read(tmp_path) == content
        return
    with pytest.raises(UserError, match=f"{name}.json is not as .*{text}"):
        read(tmp_path)


def test_what_is_not_json_is_told(tmp_path):
    (tmp_path / "config.json").write_text("{oops")
    with pytest.raises(UserError, match="config.json is not JSON: "):
        read_config(tmp_path)


def test_eight_differences_are_listed():
    assert list_differences({"a.b": (1, None)}) == "a.b (1 -> None)"
    assert list_differences({str(n): (0, 1) for n in range(9)}).endswith(" and 1 more")


def test_a_command_is_kept_once_in_a_row(tmp_path):
    for command in ("a", "a", "b", "a"):
        record_command(tmp_path, command)
    assert read_commands(tmp_path) == ["a", "b", "a"]
