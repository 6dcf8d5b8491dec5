"""The command line as a script sees it: exit codes, stdout, JSON errors, help with an example."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from edgenas import __version__
from edgenas.cli import cli, invoke


def commands(group: click.Group, *words: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for name, command in group.commands.items():
        yield (*words, name), command
        if isinstance(command, click.Group):
            yield from commands(command, *words, name)


ALL_COMMANDS = list(commands(cli))


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("words", "command"), ALL_COMMANDS, ids=lambda value: " ".join(value) if isinstance(value, tuple) else ""
)
def test_every_help_ends_with_an_example_that_parses(
    words: tuple[str, ...], command: click.Command, capsys: pytest.CaptureFixture[str]
) -> None:
    assert invoke([*words, "--help"]) == 0
    assert "Example:" in capsys.readouterr().out
    assert command.help is not None
    example = command.help.rsplit("Example:", 1)[1].split()
    assert example[0] == "edgenas"
    group, rest = cli, example[1:]
    while isinstance(found := group.commands[rest[0]], click.Group):
        group, rest = found, rest[1:]
    found.make_context(rest[0], rest[1:])


def test_version_names_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["--version"]) == 0
    assert __version__ in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "kind"),
    [
        (["predict"], 2, "UsageError"),
        (["device", "show", "rpi99"], 2, "UnknownNameError"),
        (["search", "--latency-ms", "-3"], 2, "UsageError"),
        (["profile", "--precision", "int4"], 2, "UsageError"),
        (["predict", "missing.onnx", "--device", "local"], 1, "ModelError"),
        (["validate", "missing.onnx", "--device", "local"], 1, "ModelError"),
        (["quantize", "missing.onnx", "--device", "local", "--calibration", "nowhere"], 1, "ModelError"),
        (["train", "--space", "mobilenetv3-demo", "--data", "nowhere"], 1, "DataError"),
        (["train", "--space", "unknown", "--data", "digits"], 2, "UnknownNameError"),
        (["run", "--latency-ms", "2", "--data", "nowhere"], 1, "DataError"),
        (["run", "--latency-ms", "2", "--data", "digits", "--device", "rpi99"], 2, "UnknownNameError"),
        (["report", "runs/none"], 1, "ArtifactError"),
        (["report"], 2, "UsageError"),
    ],
)
def test_bad_input_gives_one_error_and_its_exit_code(
    arguments: list[str], code: int, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert invoke([*arguments, "--json"]) == code
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["type"] == kind
    assert error["message"]


def test_flags_of_the_program_stand_before_or_after_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["--json", "device", "list"]) == 0
    before = json.loads(capsys.readouterr().out)
    assert invoke(["device", "list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == before
    assert {profile["id"] for profile in before} >= {"local", "local-openvino"}


def test_an_error_without_json_leaves_stdout_empty(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["device", "show", "locl"]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "local" in shown.err
    assert "Traceback" not in shown.err


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom edgenas.cli import invoke\ninvoke(['--help'])\n"
        "heavy = {'numpy', 'onnx', 'onnxruntime', 'torch', 'sklearn', 'rich', 'jinja2', 'openvino'}\n"
        "sys.exit(', '.join(sorted(heavy & set(sys.modules))) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_that_the_readme_names_is_a_script_that_completes(shell: str) -> None:
    program = [sys.executable, "-m", "edgenas"]
    asked = {**os.environ, "_EDGENAS_COMPLETE": f"{shell}_source"}
    script = subprocess.run(program, env=asked, capture_output=True, text=True, check=True).stdout
    assert f"_EDGENAS_COMPLETE={shell}_complete" in script
    typed = {"COMP_WORDS": "edgenas pre", "COMP_CWORD": "pre" if shell == "fish" else "1"}
    completing = {**os.environ, "_EDGENAS_COMPLETE": f"{shell}_complete", **typed}
    shown = subprocess.run(program, env=completing, capture_output=True, text=True, check=True).stdout
    assert "predict" in shown
    assert "profile" not in shown
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    assert f"_EDGENAS_COMPLETE={shell}_source" in readme


def test_python_dash_m_is_the_same_program() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "edgenas", "--version"], capture_output=True, text=True, check=True
    )
    assert __version__ in done.stdout
