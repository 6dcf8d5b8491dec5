"""The gate's findings where people look: Markdown, JUnit XML, GitHub annotations."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from xml.etree import ElementTree

from edgenas.records import CheckFinding, CheckResult
from edgenas.reporting.parts import metric_value, threads
from edgenas.units import latencies_of

MARKS = {"pass": "✅", "fail": "❌", "inconclusive": "❓", "incomparable": "⚠️"}


def markdown(result: CheckResult) -> str:
    """A summary for a pull request."""
    with latencies_of(virtual=result.virtual_clock):
        return _markdown(result)


def _markdown(result: CheckResult) -> str:
    clock = " Milliseconds are virtual: counted instructions." if result.virtual_clock else ""
    lines = [
        f"### EdgeNAS gate: {MARKS[result.verdict]} {result.verdict}",
        "",
        f"Device `{_plain(result.device)}`, {threads(result.threads)}, baseline `{_plain(result.baseline)}`."
        + clock,
        "",
    ]
    missed = [finding for finding in result.findings if finding.verdict != "pass"]
    lines += [f"- {MARKS[finding.verdict]} {_plain(sentence(finding))}" for finding in missed]
    summary = f"{len(result.findings)} findings"
    lines += ["", f"<details{' open' if missed else ''}><summary>{summary}</summary>", ""]
    lines += [*_table(result.findings), "", "</details>"]
    return "\n".join(lines) + "\n"


def _table(findings: Sequence[CheckFinding]) -> list[str]:
    lines = [
        "| model | metric | baseline | now | limit | verdict | |",
        "|---|---|--:|--:|--:|---|---|",
    ]
    for finding in findings:
        values = [
            finding_value(finding, number) for number in (finding.baseline, finding.value, finding.limit)
        ]
        verdict = f"{MARKS[finding.verdict]} {finding.verdict}"
        cells = [_plain(finding.model), _plain(finding.metric), *values, verdict, _plain(finding.note)]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def junit(result: CheckResult) -> str:
    """JUnit XML: a suite per model, a case per metric; inconclusive and incomparable are errors."""
    with latencies_of(virtual=result.virtual_clock):
        return _junit(result)


def _junit(result: CheckResult) -> str:
    root = ElementTree.Element("testsuites", name="edgenas check", time=f"{result.elapsed_s:.3f}")
    ordered = sorted(result.findings, key=lambda finding: finding.model)
    for model, grouped in groupby(ordered, key=lambda finding: finding.model):
        findings = list(grouped)
        failed = sum(finding.verdict == "fail" for finding in findings)
        unsure = sum(finding.verdict in ("inconclusive", "incomparable") for finding in findings)
        counts = {
            "name": _xml(model),
            "tests": str(len(findings)),
            "failures": str(failed),
            "errors": str(unsure),
        }
        suite = ElementTree.SubElement(root, "testsuite", counts)
        for finding in findings:
            case = ElementTree.SubElement(suite, "testcase", classname=_xml(model), name=_xml(finding.metric))
            if finding.verdict != "pass":
                kind = "failure" if finding.verdict == "fail" else "error"
                ElementTree.SubElement(case, kind, type=finding.verdict, message=_xml(sentence(finding)))
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def github_annotations(result: CheckResult) -> str:
    """GitHub workflow commands for everything that did not pass."""
    levels = {"fail": "error", "inconclusive": "warning", "incomparable": "warning"}
    with latencies_of(virtual=result.virtual_clock):
        return "".join(
            f"::{levels[finding.verdict]} title=edgenas check::{_command(sentence(finding))}\n"
            for finding in result.findings
            if finding.verdict != "pass"
        )


def sentence(finding: CheckFinding) -> str:
    """One finding in words."""
    was, now, limit = (
        finding_value(finding, number) for number in (finding.baseline, finding.value, finding.limit)
    )
    text = f"{finding.model}: {finding.metric} {finding.verdict}"
    if finding.value is not None:
        text += f", {now} (baseline {was}, limit {limit})"
    return f"{text}; {finding.note}" if finding.note else text


def finding_value(finding: CheckFinding, value: float | None) -> str:
    """A value of a finding with the unit of its metric."""
    return metric_value(finding.metric, value)


def _plain(text: str) -> str:
    """Text that ends no table cell and starts no markup."""
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace("\n", " ")
    return escaped.replace("|", "\\|").replace("`", "'")


def _xml(text: str) -> str:
    return "".join(letter for letter in text if letter.isprintable())


def _command(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
