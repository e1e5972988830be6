"""``--config``: overrides of any key, and files that are no config."""

import pytest

from configs import enas_nasbench201_cifar10
from launch.build import resolve
from launch.command import UserError
from launch.config_flag import override, read_file, split

CONFIG = "configs/enas_micro_digits.py"


@pytest.mark.parametrize(
    "text, value",
    [
        ("3", 3),
        ("1e-3", 1e-3),
        ("none", None),
        ("None", None),
        ("true", True),
        ("", ""),
        ("npz:a=b.npz", "npz:a=b.npz"),
        ("{'layers': 3}", {"layers": 3}),
    ],
)
def test_a_value_is_a_literal_or_text(text, value):
    others, given = split(
        ["run", "--config.a.b=0", f"-config.a.b={text}", "--config=x"]
    )
    assert others == ["run", "--config=x"] and given == {"a.b": value}
    assert type(given["a.b"]) is type(value)


def test_an_override_needs_a_value_and_a_section():
    with pytest.raises(ValueError, match="--config.a.b has no value; give --config.a"):
        split(["--config.a.b"])
    with pytest.raises(ValueError, match="no key 'a.b.c'; config.a.b is 3"):
        override({"a": {"b": 3}}, {"a.b.c": 1})


def overridden(**given):
    """The NAS-Bench-201 config, resolved with these overrides."""
    config = enas_nasbench201_cifar10.get_config().to_dict()
    return resolve(
        override(config, {k.replace("__", "."): v for k, v in given.items()})
    )


def test_every_key_of_a_signature_takes_none_or_a_number_where_it_may():
    assert overridden(evaluator__clip_norm=None).evaluator.clip_norm is None
    clip_norm = overridden(retrain__clip_norm=5).retrain.clip_norm  # None in the file
    assert clip_norm == 5.0 and isinstance(clip_norm, float)
    space = overridden(retrain__space__channels=3).retrain.space
    assert space.to_dict() == {"cells": 5, "channels": 3}


@pytest.mark.parametrize(
    "given, text",
    [
        ({"evaluator__clip_norm": "x"}, "evaluator.clip_norm is 'x'; .* float or none"),
        (
            {"evaluator__batch_size": None},
            "batch_size is None; it must be int",
        ),
        (
            {"evaluator__batch_size": True},
            "batch_size is True; it must be int",
        ),
        ({"retrain__space__cells": "x"}, "config.retrain.space.cells is 'x'; .* int"),
        (
            {"retrain__space__layers": 3},
            "has no key 'layers'; known: chan",
        ),
        ({"retrain__space": 3}, "config.retrain.space is 3; it must hold keys"),
        ({"strategy__policy": 3}, "config.strategy.policy is 3; it must hold keys"),
    ],
)
def test_a_bad_override_names_the_key_the_value_and_what_is_allowed(given, text):
    with pytest.raises(UserError, match=text) as mistake:
        overridden(**given)
    assert "\n" not in str(mistake.value)


def test_a_file_makes_its_config_by_its_argument():
    assert read_file(f"{CONFIG}:smoke")["train"]["rounds"] == 3
    assert read_file(CONFIG)["train"]["rounds"] > 3


@pytest.mark.parametrize(
    "content, text",
    [
        ("# Heading\n\nIt's text.\n", "unterminated string literal .*line 3"),
        ("x = 1\n", "it has no function get_config"),
        ("def get_config():\n  return 1 / 0\n", "ZeroDivisionError: division by zero"),
        ("def get_config():\n  return 3\n", "config file .*: "),
        ("def get_config(arg):\n  raise ValueError('un\\nknown')\n", ".md: un known"),
    ],
)
def test_a_file_that_is_no_config_is_told_in_one_line(tmp_path, content, text):
    (tmp_path / "config.md").write_text(content)
    argument = ":x" if "(arg)" in content else ""
    with pytest.raises(ValueError, match=text) as mistake:
        read_file(f"{tmp_path}/config.md{argument}")
    assert "\n" not in str(mistake.value)
