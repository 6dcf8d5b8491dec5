"""The page as HTML: template, style, scripts and figures in one file.

A content security policy forbids the page every connection, whatever a model's names say.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import edgenas
from edgenas.errors import UsageError
from edgenas.records import CheckResult, Prediction
from edgenas.reporting.check_sections import checks_page
from edgenas.reporting.contents import RunContents, TableContents
from edgenas.reporting.parts import Page, moment
from edgenas.reporting.prediction_sections import prediction_page
from edgenas.reporting.run_sections import run_page
from edgenas.reporting.table_sections import table_page
from edgenas.units import latencies_of

TEMPLATES = Path(__file__).parent / "templates"
SCRIPTS = ("scales.js", "chart.js", "hover.js", "page.js")  # each uses what stands before it


def render_run(contents: RunContents, *, created_at: str) -> str:
    """The report of a run.

    Raises:
        UsageError: the packages of the extra ``report`` are not installed.
    """
    with latencies_of(virtual=contents.virtual_clock):
        return _render(run_page(contents), created_at)


def render_table(contents: TableContents, *, created_at: str) -> str:
    """The report of a latency table.

    Raises:
        UsageError: the packages of the extra ``report`` are not installed.
    """
    with latencies_of(virtual=contents.summary.virtual_clock):
        return _render(table_page(contents), created_at)


def render_prediction(prediction: Prediction, *, created_at: str) -> str:
    """The page of one prediction.

    Raises:
        UsageError: the packages of the extra ``report`` are not installed.
    """
    with latencies_of(virtual=prediction.virtual_clock):
        return _render(prediction_page(prediction), created_at)


def render_checks(results: Sequence[CheckResult], *, created_at: str) -> str:
    """The report of a gate's history, the oldest result first.

    Raises:
        UsageError: the history is empty, or the packages of the extra ``report`` are not installed.
    """
    if not results:
        raise UsageError("the history has no result yet", hint="edgenas check MODEL.onnx --history FILE")
    with latencies_of(virtual=any(result.virtual_clock for result in results)):
        return _render(checks_page(results), created_at)


def script_safe_json(value: Any) -> str:
    """JSON that cannot end the script element it stands in."""
    text = json.dumps(value, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _render(page: Page, created_at: str) -> str:
    try:
        import jinja2
        import markupsafe
    except ImportError as error:
        raise UsageError(
            "reports need the package jinja2, which is not installed", hint='pip install "edgenas[report]"'
        ) from error
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    figures = {section.key: section.figure for section in page.sections if section.figure}
    return environment.get_template("page.html").render(
        page=page,
        created_at=created_at,
        created=moment(created_at),
        version=edgenas.__version__,
        style=markupsafe.Markup((TEMPLATES / "page.css").read_text(encoding="utf-8")),  # noqa: S704 (our own file)
        script=markupsafe.Markup(_script()),  # noqa: S704 (our own files)
        figures=markupsafe.Markup(script_safe_json(figures)),  # noqa: S704 (escaped for a script element)
    )


def _script() -> str:
    """All scripts as one, whose names stay inside it."""
    parts = [(TEMPLATES / name).read_text(encoding="utf-8") for name in SCRIPTS]
    return '"use strict";\n(() => {\n' + "\n".join(parts) + "})();"
