"""Writes the pages that are made from the tree: one a command from its --help, and the benchmarks.

    python docs/generate.py [FOLDER]

A test holds the committed pages to what this writes.
"""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np

from edgenas.cli import cli

DOCS = Path(__file__).parent
BENCH = DOCS.parent / "bench"
NO_TABLE = {"environment", "provenance", "samples", "gates"}
MOST_KINDS = 40  # of texts in a column, before it says nothing


def pages() -> dict[str, str]:
    """Every generated page by its path in ``docs/``."""
    found = {f"commands/{'-'.join(names)}.md": _page(names, command) for names, command in commands(cli)}
    return {**found, "benchmarks.md": benchmarks()}


def commands(
    group: click.Group, above: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command with the words that call it, groups left out."""
    for name, command in sorted(group.commands.items()):
        if isinstance(command, click.Group):
            yield from commands(command, (*above, name))
        else:
            yield (*above, name), command


def _page(names: tuple[str, ...], command: click.Command) -> str:
    words = " ".join(("edgenas", *names))
    # The names are the group's; click keeps what it made first, whichever context that was for.
    context = click.Context(
        command,
        info_name=words,
        terminal_width=100,
        max_content_width=100,
        help_option_names=cli.context_settings["help_option_names"],
    )
    return f"# {words}\n\n```\n{command.get_help(context).strip()}\n```\n"


def benchmarks() -> str:
    """All committed results as one page."""
    results = sorted((BENCH / "results").glob("*.json"))
    head = (
        "# Benchmarks\n\nMade from `bench/results/*.json` by `docs/generate.py`. Each file is the last full "
        "run of its script, with its samples; `make bench-env` installs the peers.\n"
    )
    return "\n".join([head, *(_result(path) for path in results)])


def _result(path: Path) -> str:
    name, _, variant = path.stem.partition(".")
    script, content = BENCH / f"{name}.py", json.loads(path.read_text(encoding="utf-8"))
    option, words = _variant(variant)
    command = f"python bench/{name}.py{option}"
    about = (ast.get_docstring(ast.parse(script.read_text(encoding="utf-8"))) or "").split("\n\n")[0]
    where = content.get("provenance") or content.get("environment") or {}
    facts = ", ".join(
        f"{name} {value}" for name, value in where.items() if isinstance(value, str | int | float)
    )
    tables = [_table(name, rows) for name, rows in _tables(content)]
    return "\n".join(
        [
            f"## {name}{words}\n",
            about.replace("\n", " "),
            f"\n`{command}`; {facts}.\n",
            *tables,
        ]
    )


def _variant(variant: str) -> tuple[str, str]:
    """The option and the words for a result that is not of the defaults: ``virtual-a72``, ``2-threads``."""
    number, _, kind = variant.partition("-")
    if kind == "threads":
        return f" --threads {number}", f" with {number} threads"
    return (f" --device {variant}", f" on {variant}") if variant else ("", "")


def _tables(content: dict[str, Any]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """What can be shown as rows: the summary where there is one, else every list and table of records."""
    chosen = {"summary": content["summary"]} if "summary" in content else content
    for name, value in chosen.items():
        if name in NO_TABLE:
            continue
        if isinstance(value, list) and value and all(isinstance(row, dict) for row in value):
            yield name, _averaged(value)
        elif isinstance(value, dict) and value:
            yield (
                name,
                [
                    {"": key, **(one if isinstance(one, dict) else {"value": one})}
                    for key, one in value.items()
                ],
            )


def _averaged(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows that differ in numbers alone as their means, with how many they were."""
    texts = [
        name for name in rows[0]
        if isinstance(rows[0][name], str) and len({str(row.get(name)) for row in rows}) <= MOST_KINDS
    ]  # fmt: skip
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(str(row.get(name)) for name in texts), []).append(row)
    if len(groups) == len(rows) or len(rows) <= MOST_KINDS:
        return rows
    numbers = [name for name, value in rows[0].items() if isinstance(value, int | float) and name != "seed"]
    return [
        {**dict(zip(texts, key, strict=True)), "runs": len(group), **{n: _mean(group, n) for n in numbers}}
        for key, group in groups.items()
    ]


def _mean(rows: list[dict[str, Any]], name: str) -> float | None:
    values = [row[name] for row in rows if isinstance(row.get(name), int | float)]
    return float(np.mean(values)) if values else None


def _table(name: str, rows: list[dict[str, Any]]) -> str:
    columns = [key for key in rows[0] if not isinstance(rows[0][key], list | dict)]
    lines = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    lines += [f"| {' | '.join(_cell(row.get(key)) for key in columns)} |" for row in rows]
    return f"{name.replace('_', ' ')}:\n\n" + "\n".join(lines) + "\n"


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value).replace("|", "\\|")


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else DOCS
    for name, text in pages().items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
