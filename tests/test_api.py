"""The Python functions stand beside the commands, and take what is needed only."""

from __future__ import annotations

import inspect
import subprocess
import sys

import click
import pytest

from edgenas import api
from edgenas.cli import cli
from edgenas.pipeline.gate_limits import Limits

EXTERNAL = {"as_json", "quiet", "debug"}


@pytest.mark.parametrize("name", api.__all__)
def test_every_function_has_a_command_of_its_name(name: str) -> None:
    group: click.Command = cli
    for word in name.split("_"):
        assert isinstance(group, click.Group)
        group = group.commands[word]
    function = getattr(api, name)
    assert inspect.signature(function).return_annotation is not inspect.Signature.empty
    assert function.__doc__


@pytest.mark.parametrize(
    "name",
    [
        "profile",
        "predict",
        "train",
        "search",
        "quantize",
        "validate",
        "check",
        "report",
        "run",
        "demo",
        "clean",
    ],
)
def test_options_of_a_command_are_parameters_of_its_function(name: str) -> None:
    command = cli.commands[name]
    options = {parameter.name for parameter in command.params if parameter.expose_value} - EXTERNAL
    taken = set(inspect.signature(getattr(api, name)).parameters)
    if "limits" in taken:  # they are many, and typed in one place
        taken |= set(Limits.__annotations__)
    assert options <= taken


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'deploy'"):
        api.__getattr__("deploy")


def test_predicting_and_quantizing_need_no_torch() -> None:
    code = (
        "import sys\n"
        "class NoTorch:\n"
        "    def find_spec(self, name, *rest):\n"
        "        if name.split('.')[0] == 'torch':\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, NoTorch())\n"
        "from edgenas.api import check, device_check, predict, profile, quantize, search, validate\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
