"""How programs end: a mistake in one line, a stop with the command to continue."""

import errno
import os
import pathlib
import signal
import sys

import pytest

from launch import command
from launch.command import Interrupted

ROOT = pathlib.Path(__file__).parents[2]
SMOKE = "--config=configs/enas_micro_digits.py:smoke"
COMMANDS = {
    "unknown key": [SMOKE, "--config.space.chanels=3"],
    "wrong type": [SMOKE, "--config.train.rounds=many"],
    "recipe": [SMOKE, "--config.retrain.learning_rate=-1"],
    "unknown argument": ["--config=configs/enas_micro_digits.py:smok"],
    "unknown file": ["--config=configs/enas_micro_digit.py"],
    "unwritable workdir": [SMOKE, f"--workdir={ROOT}/setup.py/run"],
    "no config": [],
}
MESSAGES = {
    "unknown key": "config.space has no key 'chanels'; did you mean channels?",
    "wrong type": "config.train.rounds",
    "recipe": "config.retrain: learning_rate is -1.0; it must be positive",
    "unknown argument": "unknown config argument 'smok'; known: smoke, random",
    "unknown file": "no config file 'configs/enas_micro_digit.py'; there are configs/",
    "unwritable workdir": "cannot write to workdir ",
    "no config": "--config",
}


@pytest.fixture(scope="module")
def programs(start_programs, tmp_path_factory):
    workdir = f"--workdir={tmp_path_factory.mktemp('run') / 'run'}"
    commands = {name: [workdir, *given] for name, given in COMMANDS.items()}
    return start_programs("launch.search", commands)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_mistake_ends_the_program_with_one_line(programs, name):
    out, err = programs[name].communicate(timeout=120)
    assert programs[name].returncode == 1
    assert err.startswith("error: ")
    assert MESSAGES[name] in err
    assert err.count("\n") <= 2
    assert "Traceback" not in out + err and "compil" not in out


@pytest.mark.parametrize(
    "stop, code, text",
    [
        (KeyboardInterrupt(), 130, "stopped; to continue: "),
        (Interrupted(15), 143, "stopped, all saved; to continue: "),
    ],
)
def test_a_stop_prints_the_command_to_continue(monkeypatch, capsys, stop, code, text):
    def main():
        raise stop

    monkeypatch.setattr(command.app, "run", lambda guarded, **_: guarded(["program"]))
    monkeypatch.setattr(sys, "argv", ["program", "--workdir=a b"])
    with pytest.raises(SystemExit) as end:
        command.run(main)
    assert end.value.code == code
    out = capsys.readouterr().out
    assert out.startswith(text) and out.endswith("'--workdir=a b'\n")


@pytest.mark.parametrize("direct", [True, False])
def test_a_full_disk_ends_a_program_with_one_line(monkeypatch, capsys, direct):
    def main():
        try:
            with command.user_errors("config.data"):  # which it does not come from
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "state/3")
        except OSError as error:
            if direct:
                raise
            raise RuntimeError("saving failed") from error

    monkeypatch.setattr(command.app, "run", lambda guarded, **_: guarded(["program"]))
    with pytest.raises(SystemExit) as end:
        command.run(main)
    assert end.value.code == 1
    err = capsys.readouterr().err
    assert err.startswith("error: no space left on the disk (") and "intact" in err
    assert err.count("\n") == 1


def test_commands_name_the_python_of_the_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert command.command_line("-m", "x") == "python -m x"
    (tmp_path / ".venv").symlink_to(sys.prefix)
    assert command.command_line("-m", "x") == ".venv/bin/python -m x"


def test_a_closed_pipe_ends_a_program_quietly(start_programs):
    given = {"describe": ["--config=configs/enas_micro_digits.py", "--explain"]}
    with start_programs("launch.describe", given)["describe"] as program:
        program.stdout.close()
        assert program.stderr.read() == ""
    assert program.returncode == 128 + signal.SIGPIPE
