"""The generated pages are current, links lead somewhere, and the tutorial's commands say what it says."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

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


@pytest.mark.slow
def test_the_tutorial_does_what_it_says(tmp_path: Path) -> None:
    steps = session(DOCS / "tutorial.md")
    assert len(steps) >= 6
    for command, expected in steps:
        arguments = shlex.split(command.split("  #")[0])
        assert arguments[0] in ("edgenas", "python"), command
        module = ["-m", "edgenas"] if arguments[0] == "edgenas" else []
        done = subprocess.run(
            [sys.executable, *module, *arguments[1:]],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        status = int(match[1]) if (match := re.search(r"exits with (\d)", command)) else 0
        assert done.returncode == status, f"{command}: {done.stderr[-800:]}"
        shown = words(done.stdout + done.stderr)
        for line in expected:
            if line.strip() != "...":
                assert words(line) in shown, f"{command}: '{line}' is not in\n{done.stdout}{done.stderr}"
