"""The chapters of a run's report."""

from __future__ import annotations

import shlex
from typing import Any

from edgenas.records import (
    Candidate,
    QuantizeResult,
    SearchResult,
    TrainResult,
    ValidateResult,
)
from edgenas.reporting import charts
from edgenas.reporting.contents import RunContents
from edgenas.reporting.latency_sections import kernels_section, prediction_section, profile_section
from edgenas.reporting.parts import (
    Fact,
    Grid,
    Page,
    Section,
    duration,
    metric_value,
    milliseconds,
    percent,
    shown,
    size,
    threads,
)
from edgenas.reporting.parts import limit as limit_text
from edgenas.reporting.schemes import spoken
from edgenas.reporting.trend_sections import trend_sections
from edgenas.units import latencies_of

OPTIONS = (
    "device", "latency_ms", "data", "space", "train_seconds", "final_seconds", "evaluations", "threads",
    "seed",
)  # fmt: skip


def run_page(contents: RunContents) -> Page:
    """The whole page of a run; a chapter whose record is missing is left out."""
    page = Page(
        title=contents.name,
        subtitle=_asked(contents),
        summary=_summary(contents),
        verdict=contents.validate.verdict if contents.validate else "",
        facts=_came_out(contents),
    )
    if contents.search:
        page.sections.extend(search_sections(contents.search))
    if contents.networks:
        page.sections.append(prediction_section(contents.networks, contents.profile))
    if contents.profile:
        page.sections.append(profile_section(contents.profile))
    if contents.prediction:
        page.sections.append(kernels_section(contents.prediction))
    if contents.quantize:
        page.sections.append(schemes_section(contents.quantize))
        if contents.quantize.sensitivity or contents.quantize.stayed_float:
            page.sections.append(sensitivity_section(contents.quantize))
    for key, title, result in (
        ("train", "Training of the supernet", contents.train),
        ("final", "Training of the winner", contents.final),
    ):
        if result and result.epochs:
            page.sections.append(training_section(key, title, result))
    if contents.validate:
        page.sections.append(validation_section(contents.validate))
    if contents.checks:
        page.sections.extend(trend_sections(contents.checks))
    page.sections.extend(_environment(contents))
    if contents.settings or not contents.quantize:  # of a quantization alone nobody wrote down the command
        page.sections.append(reproduce_section(contents))
    return page


def limit_of(contents: RunContents) -> float | None:
    """The latency limit that was asked, from whichever record knows it."""
    if contents.search and contents.search.limits_ms:
        return contents.search.limits_ms[0]
    findings = contents.validate.findings if contents.validate else ()
    return next((finding.limit for finding in findings if finding.metric == "latency_ms"), None)


def _asked(contents: RunContents) -> str:
    limit = limit_of(contents)
    device = contents.validate.device if contents.validate else contents.settings.get("device")
    parts = [
        f"data {contents.settings['data']}" if contents.settings.get("data") else "",
        f"space {contents.search.space}" if contents.search else "",
        f"device {device}" if device else "",
        f"at most {limit_text(limit)}" if limit is not None else "",
    ]
    return "Asked: " + ", ".join(part for part in parts if part) if any(parts) else ""


def _summary(contents: RunContents) -> str:
    """What came out, in a sentence or two."""
    found, quantized = contents.validate, contents.quantize
    if found is None and quantized is not None:
        return _decided(quantized)
    if found is None:
        return "No model was validated: the run did not get that far, or nothing met the limit."
    limit = limit_of(contents)
    held = "" if limit is None else f", {'within' if found.latency_ms <= limit else 'beyond'} the limit"
    text = f"The model takes {milliseconds(found.latency_ms)} on {found.device}{held}"
    text += (
        f", and {percent(found.accuracy)} of its answers are right. " if found.accuracy is not None else ". "
    )
    if quantized and quantized.scheme == "float":
        text += "Float won: no int8 scheme was better on this device; the best one stands beside the model. "
    elif quantized:
        text += (
            f"It runs in int8 ({quantized.scheme}), {quantized.float_latency_ms / quantized.latency_ms:.2f} "
            "times as fast as float. "
        )
    return text.strip()


def _decided(quantized: QuantizeResult) -> str:
    """What a quantization alone came to."""
    if quantized.scheme == "float":
        return "Float won: " + (" ".join(quantized.warnings) or "no int8 scheme was better on this device.")
    return (
        f"{_capitalised(spoken(quantized.scheme))} won on {quantized.device}: "
        f"{quantized.float_latency_ms / quantized.latency_ms:.2f} times as fast as float."
    )


def _capitalised(text: str) -> str:
    return text[:1].upper() + text[1:]


def _quantized_facts(quantized: QuantizeResult) -> tuple[Fact, ...]:
    """Of a quantization alone: validation would know more."""
    float_ms = milliseconds(quantized.float_latency_ms)
    return (
        Fact(label="latency", value=milliseconds(quantized.latency_ms), note=f"float {float_ms}"),
        Fact(
            label="accuracy on the device", value=percent(quantized.accuracy),
            note=f"float {percent(quantized.float_accuracy)}, {quantized.selection_images} samples",
        ),
        Fact(label="model size", value=size(quantized.size_bytes), note=_shrunk(quantized)),
    )  # fmt: skip


def _came_out(contents: RunContents) -> tuple[Fact, ...]:
    found = contents.validate
    if found is None:
        return _quantized_facts(contents.quantize) if contents.quantize else ()
    limit = limit_of(contents)
    share = f"{found.latency_ms / limit:.0%} of the limit of {limit_text(limit)}" if limit else ""
    mood = "" if limit is None else ("good" if found.latency_ms <= limit else "bad")
    before = (
        f"float reference {percent(found.reference_accuracy)}" if found.reference_accuracy is not None else ""
    )
    facts = [
        Fact(label="latency", value=milliseconds(found.latency_ms), note=share, mood=mood),
        Fact(label="accuracy on the device", value=percent(found.accuracy), note=before),
        Fact(label="model size", value=size(found.size_bytes), note=_shrunk(contents.quantize)),
        Fact(label="peak memory", value=size(found.peak_memory_bytes), note="of the whole process"),
    ]
    if contents.quantize:
        gain = contents.quantize.float_latency_ms / contents.quantize.latency_ms
        facts.append(
            Fact(label="scheme", value=spoken(contents.quantize.scheme), note=f"{gain:.2f}x as fast as float")
        )
    return tuple(facts)


def _shrunk(quantized: QuantizeResult | None) -> str:
    return f"float {size(quantized.float_size_bytes)}" if quantized else ""


# --- search ----------------------------------------------------------------------------------------


def search_sections(result: SearchResult) -> list[Section]:
    """One chapter per device that was searched for."""
    limits = dict(zip(result.devices, result.limits_ms, strict=False))
    sections = []
    for device in result.devices:
        with latencies_of(virtual=device in result.virtual_devices):
            sections.append(_search_section(result, device, limits.get(device)))
    return [*sections, *_progress_section(result), *_survival_section(result)]


def _progress_section(result: SearchResult) -> list[Section]:
    """How fast the front grew."""
    if len(result.hypervolume) < 2:
        return []
    rows = [(str(one.evaluations), f"{one.hypervolume:.4f}") for one in result.hypervolume]
    return [
        Section(
            key="hypervolume",
            short="Hypervolume",
            title="Hypervolume over evaluations",
            lead=(
                "The share of the box between the best and the worst of this search that its front "
                "dominates. A curve that still rises at its end asks for more --evaluations."
            ),
            figure=charts.hypervolume(result),
            describes="Line chart of the hypervolume over evaluations; the table below has its points.",
            grids=(Grid(caption="Hypervolume as a table", columns=("evaluations", "share"), rows=rows),),
        )
    ]


def _survival_section(result: SearchResult) -> list[Section]:
    """Which choices are left on the front, beside how often they were tried."""
    choices = charts.survival_of(result)
    if not choices:
        return []
    rows = [(gene, option, f"{tried:.0%}", f"{left:.0%}") for gene, option, tried, left in choices]
    rows += [(one.gene, one.option, "dropped", one.reason) for one in result.dropped]
    return [
        Section(
            key="survival",
            short="Choices",
            title="Which choices survive",
            lead="How often each option of each gene was evaluated, and how often it stands on the front.",
            figure=charts.survival(choices),
            describes="Bar chart of shares by option; the table below lists all of them.",
            grids=(
                Grid(
                    caption=f"All options as a table ({len(rows)})",
                    columns=("gene", "option", "evaluated", "on the front"),
                    rows=rows,
                ),
            ),
        )
    ]


def _search_section(result: SearchResult, device: str, limit: float | None) -> Section:
    feasible = sum(candidate.feasible for candidate in result.evaluated)
    lead = (
        f"{result.evaluations} candidates of {result.space} were scored by {result.accuracy_source} "
        f"in {duration(result.elapsed_s)} (strategy {result.strategy}, seed {result.seed}). "
    )
    if result.evaluated:
        lead += f"{feasible} of the {len(result.evaluated)} kept here meet the limit. "
    if len(result.evaluated) > charts.MOST_POINTS:
        lead += f"The chart shows {charts.MOST_POINTS} of them, evenly chosen."
    if result.best is None:
        lead += "None meets the limit."
    many = len(result.devices) > 1
    return Section(
        key=f"front-{result.devices.index(device)}",
        short=f"Front ({device})" if many else "Front",
        title=f"Accuracy against latency on {device}" if many else "Accuracy against latency",
        lead=lead,
        figure=charts.pareto_front(result, device, limit),
        describes="Scatter chart of all candidates; the table below lists the Pareto front.",
        grids=(_front_grid(result, device), *_winner_grid(result.best)),
    )


def _front_grid(result: SearchResult, device: str) -> Grid:
    front = sorted(result.front, key=lambda c: c.latency_ms.get(device, float("inf")))
    best = result.best.candidate if result.best else None
    rows = [
        (
            milliseconds(c.latency_ms.get(device)),
            c.latency_source,
            percent(c.accuracy),
            f"{c.macs / 1e6:.2f}",
            f"{c.parameters / 1e3:.1f}",
            shown(c.candidate),
        )
        for c in front
    ]
    return Grid(
        caption=f"The Pareto front as a table ({len(rows)})",
        columns=("latency", "source", "accuracy", "million MACs", "thousand parameters", "genes"),
        rows=rows,
        marked=next((i for i, c in enumerate(front) if c.candidate == best), None),
    )


def _winner_grid(best: Candidate | None) -> tuple[Grid, ...]:
    if best is None:
        return ()
    rows = [(name, shown(value)) for name, value in best.candidate.items()]
    return (Grid(caption="The chosen candidate's genes", columns=("gene", "value"), rows=rows),)


# --- quantization, training, validation --------------------------------------------------------------


def schemes_section(result: QuantizeResult) -> Section:
    """Every quantization scheme as the device ran it, those that were scored in full first."""
    order = {verdict: place for place, verdict in enumerate(("chosen", "kept", "rejected", "failed"))}
    tried = sorted(result.tried, key=lambda trial: (order[trial.verdict], trial.accuracy is None))
    rows = [
        (
            trial.scheme,
            trial.verdict,
            milliseconds(trial.latency_ms),
            percent(trial.accuracy),
            size(trial.size_bytes),
            "-" if trial.output_distance is None else f"{trial.output_distance:.4f}",
            trial.reason,
        )
        for trial in tried
    ]
    reference = f"float: {milliseconds(result.float_latency_ms)}, {percent(result.float_accuracy)}"
    return Section(
        key="schemes",
        short="Schemes",
        title="Quantization schemes tried",
        lead=(
            f"{len(rows)} schemes, calibrated with {result.calibration_images} images and compared on "
            f"{result.selection_images} others, all on the device ({reference}). "
            f"Chosen: {spoken(result.scheme)}. Distance is that of the outputs to float's, relative to their "
            "size. " + " ".join(result.warnings)
        ),
        figure=charts.schemes(result),
        describes="Scatter chart of the schemes; the table below has the numbers and the reasons.",
        grids=(
            Grid(
                caption="Every scheme",
                columns=("scheme", "verdict", "latency", "accuracy", "size", "distance", "reason"),
                rows=rows,
                folded=False,
                marked=next((i for i, trial in enumerate(tried) if trial.verdict == "chosen"), None),
            ),
        ),
    )


def sensitivity_section(result: QuantizeResult) -> Section:
    """What each part of the network costs on integers, and what stayed float and why."""
    parts = [
        (
            part.layer, str(part.operators), "int8" if part.integer else "float", f"{part.squared_error:.2e}",
            milliseconds(part.float_ms), milliseconds(part.int8_ms),
        )
        for part in result.sensitivity
    ]  # fmt: skip
    floats = [(f.op, str(f.count), f.reason, ", ".join(f.examples)) for f in result.stayed_float]
    return Section(
        key="sensitivity",
        short="Sensitivity",
        title="What stayed float and why",
        lead=(
            "Each part of the network alone on integers, measured on the device: the share of the outputs' "
            "energy that becomes error, and its time in both precisions. The best int8 model has "
            f"{sum(part.integer for part in result.sensitivity)} of {len(parts)} parts on integers."
        ),
        figure=charts.sensitivity(result) if parts else None,
        describes="Bars of each part's error, dots of the time it saves; the tables have the numbers.",
        grids=(
            Grid(
                caption="Operators in float",
                columns=("operator", "count", "why", "such as"),
                rows=floats,
                folded=False,
            ),
            Grid(
                caption="Every part",
                columns=("first layer", "operators", "precision", "error", "in float", "on integers"),
                rows=parts,
            ),
        ),
    )


def training_section(key: str, title: str, result: TrainResult) -> Section:
    """The curves of one training."""
    rows = [
        (str(epoch.epoch), f"{epoch.loss:.4f}", shown({k: percent(v) for k, v in epoch.accuracy.items()}))
        for epoch in result.epochs
    ]
    return Section(
        key=key,
        short=title.removeprefix("Training of the ").capitalize(),
        title=title,
        lead=f"{len(rows)} epochs on {result.data} in {duration(result.elapsed_s)} of CPU time.",
        facts=(Fact(label="validation accuracy", value=percent(result.validation_accuracy)),),
        figure=charts.training_curves(result),
        describes="Line charts of accuracy and loss by epoch; the table below has the numbers.",
        grids=(Grid(caption="Every epoch", columns=("epoch", "loss", "accuracy"), rows=rows),),
    )


def validation_section(found: ValidateResult) -> Section:
    """The model as the device runs it, and every limit with its verdict."""
    facts = [
        Fact(label="latency", value=milliseconds(found.latency_ms), note="the repeatable one"),
        Fact(label="median", value=milliseconds(found.latency_p50_ms)),
        Fact(label="p90", value=milliseconds(found.latency_p90_ms)),
        Fact(label="p99", value=milliseconds(found.latency_p99_ms)),
        Fact(
            label="repeats within",
            value=f"±{percent(found.latency_relative_halfwidth)}",
            note="95 % interval",
        ),
        Fact(label="loading", value=milliseconds(found.load_ms)),
    ]
    if found.agreement is not None:
        facts.append(Fact(label="same answer as float", value=percent(found.agreement)))
    if found.output_distance is not None:
        facts.append(
            Fact(label="distance to float", value=f"{found.output_distance:.4f}", note="relative L2")
        )
    rows = [
        (
            f.metric.removesuffix("_ms").replace("_", " "),  # the value has the unit
            metric_value(f.metric, f.value),
            metric_value(f.metric, f.limit),
            f.verdict,
        )
        for f in found.findings
    ]
    grids = (
        (Grid(caption="Limits", columns=("metric", "value", "limit", "verdict"), rows=rows, folded=False),)
        if rows
        else ()
    )
    return Section(
        key="validation",
        short="Validation",
        title="Validation on the device",
        lead=f"A fresh process on {found.device}, {threads(found.threads)}, batch 1.",
        facts=tuple(facts),
        grids=grids,
    )


# --- where and how -----------------------------------------------------------------------------------


def _environment(contents: RunContents) -> list[Section]:
    record = contents.validate or contents.profile
    if record is None:
        return []
    return [environment_section(record.environment.to_dict(), contents.versions)]


def environment_section(environment: dict[str, Any], versions: dict[str, str]) -> Section:
    """The device as the agent read it, and the versions on the host."""
    grids = [
        Grid(
            caption="The device, as its agent read it",
            columns=("property", "value"),
            rows=[(name.replace("_", " "), _property(name, value)) for name, value in environment.items()],
            folded=False,
        )
    ]
    if versions:
        rows = list(versions.items())
        grids.append(Grid(caption="Versions on the host", columns=("package", "version"), rows=rows))
    return Section(key="environment", short="Environment", title="Environment", grids=tuple(grids))


def _property(name: str, value: object) -> str:
    return size(value) if name.endswith("_bytes") and isinstance(value, int) else shown(value)


def reproduce_section(contents: RunContents) -> Section:
    """The commands that lead here again."""
    folder = shlex.quote(contents.name)
    commands = [str(contents.settings.get("command") or run_command(contents.settings))]
    if contents.validate:
        commands += [f"cd runs/{folder}", "python infer.py IMAGE.png"]
    rows = [(name, shown(value)) for name, value in contents.settings.items()]
    grids = (Grid(caption="All settings", columns=("setting", "value"), rows=rows),) if rows else ()
    return Section(
        key="reproduce",
        short="Reproduce",
        title="How to reproduce",
        lead="The same seed proposes the same candidates; what the device measures varies with its noise.",
        grids=grids,
        commands=tuple(commands),
    )


def run_command(settings: dict[str, Any]) -> str:
    """The ``edgenas run`` command line for the settings that are options of it."""
    words = ["edgenas", "run"]
    for name in OPTIONS:
        value = settings.get(name)
        values = value if isinstance(value, list | tuple) else [] if value is None else [value]
        for one in values:
            words += ["--" + name.replace("_", "-"), f"{one:g}" if isinstance(one, float) else str(one)]
    return shlex.join(words)
