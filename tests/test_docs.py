"""The generated pages are current, links lead somewhere, and the tutorial's commands say what it says."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from edgenas.cli import invoke

DOCS = Path(__file__).parents[1] / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), DOCS.parent / "README.md"])


def test_generated_pages_are_current(tmp_path: Path) -> None:
    # In a process of its own: click keeps the help option of whichever context asked for it first.
    subprocess.run([sys.executable, DOCS / "generate.py", tmp_path], check=True)
    expected = {path.relative_to(tmp_path) for path in tmp_path.rglob("*.md")}
    assert {Path("commands/check.md"), Path("benchmarks.md")} <= expected
    for name in expected:
        current = (DOCS / name).read_text(encoding="utf-8")
        assert current == (tmp_path / name).read_text(encoding="utf-8"), f"{name}: python docs/generate.py"
    assert {path.relative_to(DOCS) for path in (DOCS / "commands").iterdir()} <= expected


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS.parent)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8")):
        assert link.startswith("https://") or (page.parent / link).exists(), link


def session(page: Path) -> list[tuple[str, list[str]]]:
    """The commands of a page's ``console`` blocks, with the lines of output that stand below each."""
    steps: list[tuple[str, list[str]]] = []
    for block in re.findall(r"```console\n(.*?)```", page.read_text(encoding="utf-8"), re.S):
        for line in block.splitlines():
            if line.startswith("$ "):
                steps.append((line[2:], []))
            elif line.strip():
                steps[-1][1].append(line)
    return steps


def words(text: str) -> str:
    """Text with every number as #, and all that a terminal's width decides taken out."""
    return " ".join(re.sub(r"\d+(\.\d+)?", "#", text).split())


def typed(command: str, capfd: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """The exit code and all that a command line shows; edgenas's own run here, as the console script does."""
    program, *arguments = shlex.split(command, comments=True)
    if program == "edgenas":
        code = invoke(arguments)
        return code, "".join(capfd.readouterr())
    assert program == "python", command
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def write_files(page: Path, folder: Path) -> None:
    """The files that a page shows: "`NAME.toml`:" or "`NAME.py`:", and the block below it."""
    text = page.read_text(encoding="utf-8")
    for name, content in re.findall(r"`([\w/.-]+\.(?:toml|py))`:\n\n```\w+\n(.*?)```", text, re.S):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content, encoding="utf-8")


def follow(page: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Types the commands of a page and holds what they say to it."""
    steps = session(page)
    assert steps
    for command, expected in steps:
        status = int(match[1]) if (match := re.search(r"exits with (\d)", command)) else 0
        code, said = typed(command, capfd)
        assert code == status, f"{command}: {said[-800:]}"
        shown = words(said)
        for line in expected:
            if line.strip() != "...":
                assert words(line) in shown, f"{command}: '{line}' is not in\n{said}"


@pytest.mark.slow
def test_the_tutorial_and_what_follows_it_do_what_they_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    write_files(DOCS / "tutorial.md", tmp_path)
    for page in ("tutorial.md", "why-is-my-int8-slower.md", "read-a-latency-table.md"):
        follow(DOCS / page, capfd)


def test_adding_a_device_does_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("EDGENAS_CONFIG", str(tmp_path / "configuration"))
    write_files(DOCS / "add-your-device.md", tmp_path)
    follow(DOCS / "add-your-device.md", capfd)
