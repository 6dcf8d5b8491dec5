"""How long a report takes to open in a real headless Chromium, and how large it is.

    python bench/report.py [--quick] [--json OUT] [--seeds N] [--run FOLDER]

Three pages: a run (the folder given, or one made here: a profiled space, a search over it, the winner
predicted and validated), the latency table behind it, and a gate's history. Every page is opened many
times in a browser that keeps nothing. Text: when the first text is on the screen. Ready: when every
chart on the first screen is, too, and answers the mouse. Both in ms from the moment that the page was
asked for, by the browser's own clock.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from provenance import provenance

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import chromium

from edgenas.api import check, predict, profile, report, search, table_export, validate
from edgenas.files import write_atomically
from edgenas.latency_tables.table import LatencyTable
from edgenas.pipeline.report import network_points
from edgenas.search_spaces import build_onnx, get_space
from edgenas.workspace import Workspace

SPACE, OPENINGS, CHECKS = "mobilenetv3-demo", 10, 200
SCREENS = {"desktop": 1200, "phone": 390}
PAINT_MS = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
CHARTS_MS = "performance.getEntriesByName('first-charts-shown')[0]?.startTime"
FIRST_CHARTS = """[...document.querySelectorAll('.chart')].filter(
  (chart) => chart.getBoundingClientRect().top < window.innerHeight).every((chart) => chart.dataset.drawn)"""


def made_run(workspace: Workspace, *, quick: bool) -> Path:
    """A run's folder from a space that is profiled and searched here; weights are random."""
    folder = workspace.runs / "bench"
    folder.mkdir(parents=True)
    seconds, evaluations = (8.0, 300) if quick else (15.0, 3000)
    found = {
        "profile": profile(device="local", space=[SPACE], threads=1, time_limit_s=seconds, workspace=workspace),
        "search": search(
            latency_ms=[1.0], device=["local"], space=SPACE, accuracy="proxy", evaluations=evaluations,
            threads=1, workspace=workspace,
        ),
    }  # fmt: skip
    model = folder / "model.onnx"
    space = get_space(SPACE)
    model.write_bytes(
        build_onnx(space.network(space.sample(np.random.default_rng(0), 1)[0])).SerializeToString()
    )
    found["prediction"] = predict(model, device="local", threads=1, workspace=workspace)
    found["validate"] = validate(model, device="local", threads=1, latency_ms=1.0, workspace=workspace)
    with LatencyTable.open(workspace.table_path("local")) as table:
        found["networks"] = network_points(table)
    found["run"] = {"name": "bench", "device": "local", "latency_ms": 1.0, "space": SPACE, "seed": 0}
    for name, record in found.items():
        (folder / f"{name}.json").write_bytes(msgspec.json.encode(record))
    return folder


def made_history(workspace: Workspace, model: Path, count: int) -> Path:
    """As many results of a predicted gate as a busy repository has in a few months."""
    history, baseline = workspace.root / "history.jsonl", workspace.root / "ci" / "baseline.json"
    table_export("local", output=workspace.root / "ci" / "local.json", workspace=workspace)
    check(
        [model],
        baseline=baseline,
        table=workspace.root / "ci" / "local.json",
        update=True,
        workspace=workspace,
    )
    check([model], baseline=baseline, history=history, workspace=workspace)
    history.write_bytes(history.read_bytes() * count)
    return history


def opened(page: Path, openings: int, *, width: int) -> list[dict[str, float]]:
    """What each opening took, in ms; every one in a browser of its own profile."""
    found = []
    for _ in range(openings):
        with tempfile.TemporaryDirectory() as folder:
            browser = chromium.Page(Path(folder))
            try:
                browser.open(page, width=width)
                for moment in (PAINT_MS, CHARTS_MS):
                    browser.wait_for(f"{moment} !== undefined")
                text_ms, charts_ms = browser.evaluate(PAINT_MS), browser.evaluate(CHARTS_MS)
                found.append({"text_ms": text_ms, "ready_ms": max(text_ms, charts_ms)})
                assert browser.evaluate(FIRST_CHARTS) and browser.problems() == []
            finally:
                browser.close()
    return found


def row(name: str, page: Path, screen: str, samples: list[dict[str, float]]) -> dict[str, Any]:
    text, ready = (np.array([one[key] for one in samples]) for key in ("text_ms", "ready_ms"))
    return {
        "page": name, "screen": screen, "size_mb": page.stat().st_size / 1e6, "openings": len(samples),
        "text_ms": float(np.median(text)), "ready_ms": float(np.median(ready)),
        "ready_p90_ms": float(np.quantile(ready, 0.9)), "slowest_ms": float(ready.max()),
    }  # fmt: skip


def table(rows: list[dict[str, Any]]) -> str:
    lines = [
        f"{'page':<10} {'screen':<8} {'MB':>5} {'openings':>8} {'text ms':>8} {'ready ms':>9} {'p90':>7} {'slowest':>8}"
    ]
    lines += [
        f"{one['page']:<10} {one['screen']:<8} {one['size_mb']:>5.2f} {one['openings']:>8} {one['text_ms']:>8.0f} "
        f"{one['ready_ms']:>9.0f} {one['ready_p90_ms']:>7.0f} {one['slowest_ms']:>8.0f}"
        for one in rows
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a small run, three openings")
    parser.add_argument("--json", type=Path, help="where every opening is written")
    parser.add_argument("--seeds", type=int, help="openings of each page instead")
    parser.add_argument("--run", type=Path, help="a run's folder; default: one is made")
    options = parser.parse_args()
    openings = options.seeds or (3 if options.quick else OPENINGS)
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace(Path(folder))
        made = made_run(workspace, quick=options.quick)
        pages = {
            "run": report(options.run or made, output=Path(folder) / "run.html", workspace=workspace),
            "table": report(table="local", workspace=workspace),
            "gate": report(checks=made_history(workspace, made / "model.onnx", CHECKS), workspace=workspace),
        }
        rows, samples = [], []
        for name, page in pages.items():
            for screen, width in SCREENS.items():
                found = opened(page, openings, width=width)
                samples += [{"page": name, "screen": screen, **one} for one in found]
                rows.append(row(name, page, screen, found))
    print(table(rows))
    if options.json:
        content = {"provenance": provenance("jinja2"), "summary": rows, "samples": samples}
        write_atomically(options.json, json.dumps(content, indent=1).encode())


if __name__ == "__main__":
    main()
