"""The example of the docs, built in a git repository of its own; the action's own steps are run there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from edgenas.pipeline.check_history import read_history
from edgenas.search_spaces import build_onnx, get_space

EXAMPLE = Path(__file__).parents[1] / "docs" / "example-repository"
MODEL = "models/classifier.onnx"


def write_model(path: Path, option: int) -> None:
    """A network of the demo's space: the first options make the smallest one, the last ones the largest."""
    space = get_space("mobilenetv3-demo")
    genome = np.array([option % len(choice.options) for choice in space.choices])
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(build_onnx(space.network(genome), precision=False).SerializeToString())


def shim(path: Path, script: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


class Repository:
    """A checkout, and a PATH in which `edgenas` is this tree and pip installs nothing."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.bin = folder / "checkout", folder / "bin"
        self.folder.mkdir()
        shim(self.bin / "edgenas", f'exec "{sys.executable}" -m edgenas "$@"')
        shim(self.bin / "python", f'[ "$2" = pip ] && exit 0; exec "{sys.executable}" "$@"')
        self.environment = {
            **os.environ,
            "PATH": f"{self.bin}:/usr/bin:/bin",
            "PYTHONPATH": str(Path(__file__).parents[1]),
            "GITHUB_ACTIONS": "true",
            "GITHUB_ACTION_PATH": str(self.folder / "ci"),
            "GITHUB_STEP_SUMMARY": str(folder / "summary.md"),
        }

    def run(self, *command: str, **more: str) -> subprocess.CompletedProcess[str]:
        environment = {**self.environment, **more}
        return subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False
        )

    def must(self, *command: str) -> None:
        done = self.run(*command)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"

    def run_action(self) -> subprocess.CompletedProcess[str]:
        """What a runner does with the composite action that the workflow names."""
        action, given = read(self.folder / "ci" / "action.yml"), self.called_with()
        inputs = {name: given.get(name, one.get("default", "")) for name, one in action["inputs"].items()}
        for step in action["runs"]["steps"]:
            values = {name: filled(value, inputs) for name, value in step.get("env", {}).items()}
            done = self.run(step["shell"], "-e", "-c", filled(step["run"], inputs), **values)
            if done.returncode:
                return done
        return done

    def called_with(self) -> dict[str, str]:
        """The inputs that the workflow gives to `uses: ./ci`."""
        steps = read(self.folder / ".github" / "workflows" / "gate.yml")["jobs"]["gate"]["steps"]
        found: dict[str, str] = next(step["with"] for step in steps if step.get("uses") == "./ci")
        return found


def read(path: Path) -> dict[str, Any]:
    yaml = pytest.importorskip("yaml")
    content: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return content


def filled(text: str, inputs: dict[str, str]) -> str:
    """`${{ inputs.NAME }}` replaced; a name that the action does not declare is an error here."""
    return re.sub(r"\$\{\{ inputs\.(\w+) \}\}", lambda match: inputs[match[1]], text)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """The example, made with the commands that its page names."""
    made = Repository(tmp_path_factory.mktemp("example"))
    workflow = made.folder / ".github" / "workflows" / "gate.yml"
    workflow.parent.mkdir(parents=True)
    workflow.write_bytes((EXAMPLE / "gate.yml").read_bytes())
    (made.folder / "edgenas.toml").write_bytes((EXAMPLE / "edgenas.toml").read_bytes())
    write_model(made.folder / MODEL, 0)
    made.must("git", "init", "-q")
    made.must("edgenas", "ci", "init")
    made.must("edgenas", "check", MODEL, "--baseline", "ci/baseline.json", "--threads", "1", "--update")
    made.must("git", "add", ".")
    made.must("git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "the example")
    return made


def test_the_page_names_every_file_of_the_repository(repository: Repository) -> None:
    page = (EXAMPLE / "README.md").read_text(encoding="utf-8")
    listed = subprocess.check_output(["git", "ls-files"], cwd=repository.folder, text=True).split()
    assert len(listed) == 6
    assert all(name in page for name in listed)


def test_the_action_is_what_a_runner_wants(repository: Repository) -> None:
    action = read(repository.folder / "ci" / "action.yml")
    assert action["runs"]["using"] == "composite"
    assert all({"run", "shell"} <= set(step) for step in action["runs"]["steps"])
    required = {name for name, one in action["inputs"].items() if one.get("required")}
    assert required <= set(repository.called_with()) <= set(action["inputs"])
    # An input inside a script could end a command and begin another: inputs come as variables alone.
    assert not any("${{" in step["run"] for step in action["runs"]["steps"])
    assert read(repository.folder / ".github" / "workflows" / "gate.yml")[True] == ["pull_request"]  # "on"


def test_an_unchanged_model_passes_and_a_larger_one_breaks_the_job(repository: Repository) -> None:
    done = repository.run_action()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "::error" not in done.stderr
    write_model(repository.folder / MODEL, -1)
    done = repository.run_action()
    write_model(repository.folder / MODEL, 0)
    assert done.returncode == 3, done.stdout + done.stderr
    assert "::error title=edgenas check::classifier: latency_ms fail" in done.stderr
    results = repository.folder / "gate-results"
    failed = {
        case.get("name") for case in ElementTree.parse(results / "junit.xml").iter("testcase") if len(case)
    }
    assert {"size_bytes", "parameters", "latency_ms"} <= failed
    history = read_history(results / "history.jsonl")
    assert [one.verdict for one in history][-1] == "fail"
    assert all(len(one.commit) == 40 for one in history)
    summary = Path(repository.environment["GITHUB_STEP_SUMMARY"]).read_text(encoding="utf-8")
    assert summary.count("### EdgeNAS gate:") == 2
