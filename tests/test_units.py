"""Milliseconds of a virtual board never stand without their label, wherever they are shown."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from test_report import (
    ENVIRONMENT,
    history,
    network_points,
    prediction,
    profile_result,
    quantize_result,
    search_result,
    validate_result,
)

from edgenas.console import show
from edgenas.records import CheckResult, Record, TableSummary
from edgenas.reporting import RunContents, TableContents
from edgenas.reporting.check_sections import checks_page
from edgenas.reporting.gate import github_annotations, junit, markdown
from edgenas.reporting.page import render_checks, render_run, render_table
from edgenas.units import latencies_of

UNLABELLED = re.compile(r"(?<!virtual )(?<![A-Za-z_])(?:ms|µs)\b")


def virtual(record: Any) -> Any:
    """The record as a virtual board would have left it."""
    changes: dict[str, Any] = {}
    if "virtual_clock" in record.__struct_fields__:
        changes["virtual_clock"] = True
    if "virtual_devices" in record.__struct_fields__:
        changes["virtual_devices"] = record.devices
    if getattr(record, "environment", None) is not None:
        changes["environment"] = msgspec.structs.replace(ENVIRONMENT, virtual_clock=True)
    assert changes
    return msgspec.structs.replace(record, **changes)


RECORDS: list[Callable[[], Record]] = [
    search_result,
    quantize_result,
    prediction,
    validate_result,
    profile_result,
]


@pytest.mark.parametrize("made", RECORDS)
def test_terminal_and_json_label_every_latency(
    made: Callable[[], Record], capsys: pytest.CaptureFixture[str]
) -> None:
    show(made())
    plain = capsys.readouterr().out
    assert "virtual" not in plain
    record = virtual(made())
    show(record)
    shown = capsys.readouterr().out
    assert not UNLABELLED.findall(shown), shown
    assert ("virtual ms" in shown) == bool(UNLABELLED.findall(plain))
    assert '"virtual_clock":true' in record.to_json() or '"virtual_devices":["local"]' in record.to_json()


def test_real_and_virtual_device_stand_side_by_side_with_labels(capsys: pytest.CaptureFixture[str]) -> None:
    result = search_result(20)
    both = [msgspec.structs.replace(c, latency_ms={"rpi4": 1.0, "virtual-a72": 2.0}) for c in result.front]
    show(
        msgspec.structs.replace(
            result,
            devices=("rpi4", "virtual-a72"),
            virtual_devices=("virtual-a72",),
            front=tuple(both),
            best=both[0],
        )
    )
    assert re.search(r"1 ms, 2 virtual ms", re.sub(r"\s+", " ", capsys.readouterr().out))


def _sentences(page: str) -> str:
    """The page without style, script and the plotting library."""
    return re.sub(r"<(style|script)\b(?![^>]*json).*?</\1>", "", page, flags=re.S)


def test_report_of_a_run_labels_every_latency() -> None:
    contents = {
        "profile": profile_result(),
        "search": search_result(40),
        "quantize": quantize_result(),
        "validate": validate_result(),
        "prediction": prediction(),
    }
    made = RunContents(
        name="r", networks=network_points(), **{name: virtual(one) for name, one in contents.items()}
    )
    page = _sentences(render_run(made, created_at="now"))
    assert "virtual ms" in page
    assert not UNLABELLED.findall(page), [
        page[m.start() - 60 : m.end() + 20] for m in UNLABELLED.finditer(page)
    ]


def test_report_of_a_table_labels_every_latency() -> None:
    summary = TableSummary(
        device="virtual-a72", path="t", schema_version=1, runtime="onnxruntime", kernels=1, networks=1,
        environments=1, runs=1, size_bytes=10, updated_at="now", virtual_clock=True,
    )  # fmt: skip
    contents = TableContents(
        summary=summary, threads=1, environment={}, kernels=(), networks=network_points()
    )
    page = _sentences(render_table(contents, created_at="now"))
    assert "virtual ms" in page
    assert not UNLABELLED.findall(page)


def test_gate_labels_every_latency() -> None:
    results: list[CheckResult] = [virtual(one) for one in history(4)]
    told = [told(results[-1]) for told in (markdown, junit, github_annotations)]
    assert "virtual ms" in told[0] and "counted instructions" in told[0]
    for text in told:
        assert not UNLABELLED.findall(text), text
    with latencies_of(virtual=True):
        assert checks_page(results)
    assert not UNLABELLED.findall(_sentences(render_checks(results, created_at="now")))
    assert "virtual" not in markdown(history(4)[-1])
