"""The code of the documentation runs, and what it names is there."""

import re
from pathlib import Path

import pytest

from child_models.spaces import SPACES

ROOT = Path(__file__).parents[1]


def run(page: str, **names):
    """Runs the Python blocks of a page in order; the names that they leave."""
    text = (ROOT / "docs" / page).read_text("utf-8")
    code = "\n".join(re.findall(r"^```python\n(.*?)^```", text, re.M | re.S))
    exec(compile(code, page, "exec"), names)
    return names


def test_data_of_one_s_own(tmp_path, capsys):
    names = run("own_data.md", folder=tmp_path)
    assert capsys.readouterr().out.splitlines() == [
        "2 (150, 16, 16, 3) (50, 16, 16, 3)",
        "2 (120, 16, 16, 3) (40, 16, 16, 3)",
    ]
    assert names["data"].train.labels.max() == 1


def test_a_space_of_one_s_own(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(SPACES, "chain", None)  # puts it back
    names = run("own_space.md", workdir=tmp_path)
    assert names["space"].spec.size() == 9
    out = capsys.readouterr().out
    assert '{"layer/0/op": ' in out and "\n  layer/1  " in out
    assert "logits" in (tmp_path / "best.svg").read_text()


@pytest.mark.parametrize("page", sorted(p.name for p in (ROOT / "docs").glob("*.md")))
def test_what_a_page_names_is_there(page):
    text = (ROOT / "docs" / page).read_text("utf-8")
    files = re.findall(
        r"`((?:child_models|controller|launch|configs)/[\w/]+\.py)`", text
    )
    made = {"child_models/spaces/chain.py"}  # by the reader
    assert [f for f in files if f not in made and not (ROOT / f).is_file()] == []
    for module in re.findall(r"\blaunch\.(\w+)\b", text):
        assert (ROOT / "launch" / f"{module}.py").is_file() or module == "figures"
    if page == "papers.md":
        configs = set(re.findall(r"`(\w+_(?:digits|cifar10|nasbench201))`", text))
        assert len(configs) > 9
        assert [
            c for c in configs if not (ROOT / "configs" / f"{c}.py").is_file()
        ] == []
