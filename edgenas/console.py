"""What a person sees in the terminal: bars and messages on stderr, tables of results on stdout."""

from __future__ import annotations

import contextlib
import functools
import math
import re
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from edgenas.errors import EdgeNASError
from edgenas.progress import Task, Watcher
from edgenas.records import (
    Candidate,
    CheckFinding,
    CheckResult,
    CleanResult,
    DeviceCheck,
    DeviceSummary,
    KernelPrediction,
    LayerPrediction,
    Prediction,
    ProfileCell,
    ProfileResult,
    QuantizeResult,
    Record,
    RunResult,
    SchemeTrial,
    SearchResult,
    TableCell,
    TableRow,
    TableShown,
    TableSummary,
    TrainResult,
    TransferSummary,
    ValidateResult,
)
from edgenas.reporting.schemes import spoken
from edgenas.units import latencies_of, latency_unit

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table

Cell = str
Rows = Sequence[Sequence[Cell]]


class Terminal(Watcher):
    """Draws progress on stderr; bars vanish when stderr is not a terminal, all of it when quiet.

    Args:
        quiet: asked when the first message comes, since the command line is parsed by then.
    """

    def __init__(self, *, quiet: Callable[[], bool] = lambda: False) -> None:
        self._quiet = quiet
        self._bars: Progress | None = None

    @functools.cached_property
    def _console(self) -> Console:
        # Made on first use: `edgenas --help` must not wait for rich.
        from rich.console import Console

        return Console(stderr=True, quiet=self._quiet())

    @contextlib.contextmanager
    def track(self, description: str, total: float | None) -> Iterator[Task]:
        """One bar; bars of nested work stand below each other."""
        if self._console.is_terminal:
            with self._display() as bars:
                yield _Bar(bars, description, total)
        else:
            self.say(description)
            yield Task()

    def warn(self, message: str) -> None:
        self._console.print(f"[yellow]warning:[/yellow] {_escaped(message)}", soft_wrap=True)

    def say(self, message: str) -> None:
        self._console.print(_escaped(message), soft_wrap=True, highlight=False)

    @contextlib.contextmanager
    def _display(self) -> Iterator[Progress]:
        if self._bars is not None:
            yield self._bars
            return
        self._bars = _new_bars(self._console)
        try:
            with self._bars:
                yield self._bars
        finally:
            self._bars = None


def _new_bars(console: Any) -> Progress:
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("[dim]{task.fields[note]}"),
        console=console,
        transient=True,
    )


class _Bar(Task):
    def __init__(self, bars: Progress, description: str, total: float | None) -> None:
        self._bars = bars
        self._id = bars.add_task(_escaped(description), total=total, note="")

    def advance(self, amount: float = 1.0, *, note: str = "") -> None:
        self._bars.update(self._id, advance=amount, note=_escaped(note))


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(printable(text))


def printable(text: str) -> str:
    """Text that came from a device or a model, without what a terminal would obey."""
    return "".join(letter if letter.isprintable() or letter == "\n" else "\ufffd" for letter in text)


def show_error(error: EdgeNASError) -> None:
    """The message and the next step, on stderr."""
    terminal = Terminal()
    terminal.say(f"error: {error.message}")
    if error.hint:
        terminal.say(f"  -> {error.hint}")


def show(result: object) -> None:
    """Prints a result for people, on stdout."""
    from rich.console import Console

    # Piped output is for files and pages: it must not be cut at an assumed width of 80 columns.
    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False)
    for part in _parts(result):
        console.print(printable(part) if isinstance(part, str) else part)


def _parts(result: object) -> Iterator[Any]:
    if isinstance(result, Record):
        view = _VIEWS.get(type(result))
        with latencies_of(virtual=_is_virtual(result)):
            yield from view(result) if view else _fields(result)
    elif isinstance(result, tuple | list):
        if result and type(result[0]) in _VIEWS:
            for record in result:
                yield from _parts(record)
        elif result and isinstance(result[0], Record):
            yield records_table("", result)
        elif not result:
            yield "none yet"
        else:
            yield from (str(item) for item in result)
    else:
        yield str(result)


def _is_virtual(result: Record) -> bool:
    """Whether the latencies of a result are those of a virtual board."""
    environment = getattr(result, "environment", None)
    return bool(getattr(result, "virtual_clock", False) or getattr(environment, "virtual_clock", False))


def table(title: str, headings: Sequence[str], rows: Rows) -> Table:
    """A rich table; every cell is shown as it is, without markup."""
    from rich.table import Table
    from rich.text import Text

    built = Table(title=title or None, title_justify="left", title_style="bold")
    for heading in headings:
        built.add_column(heading, overflow="fold")
    for row in rows:
        built.add_row(*(Text(printable(cell)) for cell in row))
    return built


def _fields(record: Record) -> Iterator[Any]:
    """Any record: its plain fields as one table, each list of records as a table of its own."""
    values = {name: getattr(record, name) for name in record.__struct_fields__}
    lists = {name: value for name, value in values.items() if _is_list_of_records(value)}
    plain = {name: value for name, value in values.items() if name not in lists}
    yield table(_title(type(record)), ("field", "value"), [(name, _plain(v)) for name, v in plain.items()])
    yield from (records_table(name, records) for name, records in lists.items())


def _title(kind: type[Record]) -> str:
    """A record's name in words: ``Ci init`` of ``CiInitResult``."""
    words = re.findall(r"[A-Z][a-z]*", kind.__name__.removesuffix("Result"))
    return " ".join(words).capitalize()


def _is_list_of_records(value: object) -> bool:
    return isinstance(value, tuple) and bool(value) and isinstance(value[0], Record)


def records_table(title: str, records: Sequence[Record]) -> Table:
    """Records of one type as the rows of a table, with the columns that fit a terminal."""
    names = _COLUMNS.get(type(records[0]), records[0].__struct_fields__)
    return table(title, names, [[_plain(getattr(record, name)) for name in names] for record in records])


def _plain(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Record):
        return ", ".join(f"{name}={_plain(getattr(value, name))}" for name in value.__struct_fields__)
    if isinstance(value, dict):
        return ", ".join(f"{name}={_plain(item)}" for name, item in value.items()) or "-"
    if isinstance(value, tuple):
        return ", ".join(_plain(item) for item in value)
    return str(value)


def ms(value: float | None) -> str:
    """A latency with four significant digits."""
    return "-" if value is None else f"{value:.4g} {latency_unit()}"


def percent(value: float | None) -> str:
    """A ratio as a percentage with two decimals."""
    return "-" if value is None else f"{100 * value:.2f} %"


def megabytes(size_bytes: int) -> str:
    """A size in MB (10^6 bytes)."""
    return f"{size_bytes / 1e6:.3f} MB"


def _profile(result: ProfileResult) -> Iterator[Any]:
    headings = (
        "space",
        "precision",
        "threads",
        "networks",
        "kernels",
        "coverage",
        "held-out within 5 %",
        "within 10 %",
        "RMSPE",
        "device repeats within 5 %",
    )
    yield table(f"Latency table of {result.device}", headings, [_cell_row(cell) for cell in result.cells])
    yield (
        f"{result.measured_networks} networks measured, {result.reused_networks} reused, "
        f"{result.failed_networks} failed; {result.device_seconds:.0f} s on the device; "
        f"noise floor {percent(result.noise_floor)}; {result.table}"
    )
    for cell in result.cells:
        if cell.transfer is not None:
            yield f"{cell.space}, {cell.precision}: {transfer_note(cell.transfer, result.device)}"


def _cell_row(cell: ProfileCell) -> list[str]:
    error = cell.error
    shares = (error.within_5, error.within_10, error.rmspe, error.repeat_within_5) if error else (None,) * 4
    counts = [cell.space, cell.precision, str(cell.threads), str(cell.networks), str(cell.kernels)]
    return [*counts, percent(cell.coverage), *(percent(share) for share in shares)]


_MOST_LAYERS, _MOST_KERNELS = 15, 25
_Timed = TypeVar("_Timed", KernelPrediction, LayerPrediction)


def _longest(parts: Sequence[_Timed], most: int) -> list[_Timed]:
    """Those that take longest, the longest first."""
    return sorted(parts, key=lambda part: -part.latency_ms)[:most]


def _share_of(latency_ms: float, total_ms: float) -> tuple[str, str, str]:
    """A latency, its share of the whole in percent and as a bar."""
    return ms(latency_ms), f"{100 * latency_ms / total_ms:.1f} %", _share_bar(latency_ms, total_ms)


def _left_out(count: int, shown: int, what: str) -> Iterator[str]:
    if count > shown:
        yield f"and {count - shown} faster {what}"


def _prediction(result: Prediction) -> Iterator[Any]:
    total = result.latency_ms
    layers = result.layers()
    if len(layers) > 1:
        by_layer = [
            (one.layer, str(one.kernels), *_share_of(one.latency_ms, total))
            for one in _longest(layers, _MOST_LAYERS)
        ]
        by_layer.append(("(a run besides its kernels)", "", *_share_of(result.overhead_ms, total)))
        headings = ("layer", "kernels", "latency", "share", "")
        yield table(f"{result.model} on {result.device}, by layer", headings, by_layer)
        yield from _left_out(len(layers), _MOST_LAYERS, "layers")
    by_kernel = [
        (one.name, one.kind, *_share_of(one.latency_ms, total), one.source)
        for one in _longest(result.kernels, _MOST_KERNELS)
    ]
    columns = ("kernel", "kind", "latency", "share", "", "source")
    yield table(f"{result.model} on {result.device}, by kernel", columns, by_kernel)
    yield from _left_out(len(result.kernels), _MOST_KERNELS, "kernels")
    low, high = result.interval_ms
    threads = f"{result.threads} thread{'s' if result.threads > 1 else ''}"
    yield (
        f"predicted {ms(result.latency_ms)}, 90 % interval {ms(low)} to {ms(high)} "
        f"({threads}, {result.runtime}); interpolated {percent(result.interpolated_share)}; "
        f"kernels read on the {result.structure}"
    )
    if result.transfer is not None:
        yield transfer_note(result.transfer, result.device)


def _table_shown(result: TableShown) -> Iterator[Any]:
    summary = result.summary
    yield (
        f"{summary.device}: {summary.networks} networks, {summary.kernels} kernels, {summary.runs} runs, "
        f"{summary.environments} environments; {summary.runtime or 'foreign'}; {summary.path} "
        f"(schema {summary.schema_version}, {megabytes(summary.size_bytes)})"
    )
    if result.cells:
        headings = (
            "space", "precision", "threads", "runtime", "networks", "held out", "failed",
            "kernels timed", "coverage",
        )  # fmt: skip
        yield table("What was measured", headings, [_table_cell(cell) for cell in result.cells])
    if result.families:
        rows = [
            (one.family, f"{one.timed_kernels} of {one.kernels}", _share_bar(one.timed_kernels, one.kernels))
            for one in result.families
        ]
        yield table("Kernels by family", ("family", "timed in place", "share"), rows)
    if result.collections:
        found = [(c.collection, str(c.blocks), ms(c.least_ms), ms(c.largest_ms)) for c in result.collections]
        yield table("Blocks of another tool", ("collection", "blocks", "least", "largest"), found)
        yield (
            "a foreign table prices networks made of exactly these blocks; it has no kernels, so it answers "
            "neither `predict` nor `search`"
        )
    if result.rows:
        yield table("Rows and where they come from", _ROW_HEADINGS, [_table_row(row) for row in result.rows])


_ROW_HEADINGS = ("name", "latency", "stands on", "threads", "taken at", "written by", "device then")


def _table_cell(cell: TableCell) -> list[str]:
    counts = (cell.fitted_networks, cell.held_out_networks, cell.failed_networks)
    return [
        *(cell.space, cell.precision, str(cell.threads), cell.runtime),
        *map(str, counts),
        f"{cell.timed_kernels} of {cell.kernels}",
        percent(cell.coverage),
    ]


def _share_bar(part: float, whole: float, width: int = 20) -> str:
    """A bar as wide as the share; anything above nothing is one cell at least."""
    full = min(width, math.ceil(width * part / whole)) if whole else 0
    return "█" * full + "░" * (width - full)


def _table_row(row: TableRow) -> list[str]:
    conditions = {
        "governor": row.governor,
        "MHz": None if row.frequency_mhz is None else f"{row.frequency_mhz:.0f}",
        "°C": None if row.temperature_c is None else f"{row.temperature_c:.0f}",
        "load": None if row.load_1m is None else f"{row.load_1m:.2f}",
    }
    told = ", ".join(f"{name} {value}" for name, value in conditions.items() if value is not None)
    return [
        *(row.name, ms(row.latency_ms), row.measured, _plain(row.threads), row.taken_at[:19]),
        f"{row.command} (edgenas {row.edgenas_version})",
        "; ".join(filter(None, (row.runtime, told))) or "-",
    ]


def transfer_note(transfer: TransferSummary, device: str) -> str:
    """How a device with few measurements was priced, in one sentence."""
    donors = ", ".join(
        f"{one.device} ({one.runtime}, {one.threads} threads) {one.share:.0%}"
        for one in transfer.donors
        if one.share >= 0.005
    )
    own = transfer.own_leave_one_out_rmspe
    alone = "cannot price them all" if own is None else f"errs by {percent(own)}"
    return (
        f"only {transfer.measured_networks} networks were measured on '{device}' for this: "
        f"other tables ({donors or 'none that fits'}) {'are' if transfer.used else 'are not'} used; leaving "
        f"one out errs by {percent(transfer.leave_one_out_rmspe)} with them, its own table alone {alone}"
    )


def _genes(candidate: Candidate) -> str:
    return " ".join(f"{name}={value}" for name, value in candidate.candidate.items())


def _search(result: SearchResult) -> Iterator[Any]:
    def row(candidate: Candidate, most: int | None = None) -> list[str]:
        latency = ", ".join(_device_ms(result, *pair) for pair in candidate.latency_ms.items())
        genes = textwrap.shorten(_genes(candidate), most or 10_000, placeholder=" ...")
        return [percent(candidate.accuracy), latency, candidate.latency_source, genes]

    headings = (
        f"accuracy ({result.accuracy_source})",
        "latency on " + ", ".join(result.devices),
        "latency is",
        "candidate",
    )
    yield table(f"Pareto front of {result.space}", headings, [row(c, 160) for c in result.front])
    if result.best is not None:
        yield table("Best under the limit", headings, [row(result.best)])
        if result.best.hyperparameters:
            pairs = (f"{name} {value:.3g}" for name, value in result.best.hyperparameters.items())
            yield "trained with " + ", ".join(pairs)
    if result.dropped:
        yield f"{len(result.dropped)} options dropped before the search: slower than a more capable one"
    limits = "".join(f"; at most {most:g} {name}" for name, most in result.limits.items())
    yield (
        f"{result.evaluations} candidates scored in {result.elapsed_s:.1f} s; "
        f"seed {result.seed}; {result.strategy}{limits}"
    )
    yield from (transfer_note(transfer, device) for device, transfer in result.transfers.items())
    yield from (f"next: {step}" for step in result.next_steps)


def _device_ms(result: SearchResult, device: str, latency_ms: float) -> str:
    with latencies_of(virtual=device in result.virtual_devices):
        return ms(latency_ms)


def _quantize(result: QuantizeResult) -> Iterator[Any]:
    headings = ("scheme", "accuracy", "latency", "size", "output distance", "verdict", "why")
    yield table(f"Schemes tried on {result.device}", headings, [_trial_row(trial) for trial in result.tried])
    yield (
        f"{spoken(result.scheme)} -> {result.output}: "
        f"{ms(result.latency_ms)} (float {ms(result.float_latency_ms)}), "
        f"accuracy {percent(result.accuracy)} (float {percent(result.float_accuracy)}), "
        f"{megabytes(result.size_bytes)} (float {megabytes(result.float_size_bytes)})"
    )
    yield from (f"warning: {warning}" for warning in result.warnings)


def _trial_row(trial: SchemeTrial) -> list[str]:
    figures = [percent(trial.accuracy), ms(trial.latency_ms), megabytes(trial.size_bytes)]
    return [trial.scheme, *figures, _plain(trial.output_distance), trial.verdict, trial.reason]


def _validate(result: ValidateResult) -> Iterator[Any]:
    rows = [
        ("latency", ms(result.latency_ms)),
        (
            "p50 / p90 / p99",
            f"{ms(result.latency_p50_ms)} / {ms(result.latency_p90_ms)} / {ms(result.latency_p99_ms)}",
        ),
        ("accuracy", percent(result.accuracy)),
        ("reference accuracy", percent(result.reference_accuracy)),
        ("output distance", _plain(result.output_distance)),
        ("size", megabytes(result.size_bytes)),
        ("peak memory", megabytes(result.peak_memory_bytes)),
        *(
            (f"limit: {f.metric} <= {_plain(f.limit)}", f"{_plain(f.value)} ({f.verdict})")
            for f in result.findings
        ),
        ("verdict", result.verdict),
    ]
    yield table(f"{result.model} on {result.device}", ("measured", "value"), rows)


def _check(result: DeviceCheck) -> Iterator[Any]:
    rows = [(f.name, f.value, f.verdict, f.advice) for f in result.findings]
    yield table(f"Device {result.device}", ("looked at", "found", "verdict", "advice"), rows)
    yield f"noise floor {percent(result.noise_floor)}"


_UNDECIDED = {
    "inconclusive": "too noisy to tell: run it again on a quieter device, or add --tolerate inconclusive",
    "incomparable": "the baseline is of something else: accept a new one with --update, or add"
    " --tolerate incomparable",
}


def _gate(result: CheckResult) -> Iterator[Any]:
    from edgenas.reporting.gate import finding_value

    def row(f: CheckFinding) -> list[str]:
        values = [finding_value(f, number) for number in (f.baseline, f.value, f.limit)]
        return [f.model, f.metric, *values, f.verdict, f.note]

    headings = ("model", "metric", "baseline", "now", "limit", "verdict", "")
    yield table(f"Gate on {result.device}", headings, [row(finding) for finding in result.findings])
    if result.updated and result.verdict == "pass":
        yield f"accepted as the new baseline: {result.baseline}"
        return
    cores = "1 thread" if result.threads == 1 else f"{result.threads} threads"
    how = f"latency {result.latency_source}, {cores}, {result.elapsed_s:.1f} s"
    yield f"{result.verdict}: {result.baseline} ({how})"
    undecided = {f.verdict for f in result.findings} - {"pass", "fail", *result.tolerated}
    yield from (f"{verdict}: {_UNDECIDED[verdict]}" for verdict in sorted(undecided))


def _train(result: TrainResult) -> Iterator[Any]:
    rows = [
        (
            str(epoch.epoch),
            f"{epoch.loss:.4f}",
            ", ".join(f"{name} {percent(value)}" for name, value in epoch.accuracy.items()),
            f"{epoch.elapsed_s:.0f} s",
        )
        for epoch in result.epochs
    ]
    yield table(f"Training on {result.data}", ("epoch", "loss", "validation accuracy", "time"), rows)
    yield f"{result.checkpoint}: validation accuracy {percent(result.validation_accuracy)}"


def _clean(result: CleanResult) -> Iterator[Any]:
    rows = [
        (item.kind, item.path, f"{item.size_bytes / 1e6:.1f} MB", f"{item.age_s / 86400:.0f} days")
        for item in result.items
    ]
    if rows:
        yield table("", ("what", "folder", "size", "unchanged for"), rows)
    yield f"{result.size_bytes / 1e6:.1f} MB {'removed' if result.removed else 'can be removed'}"


def _run(result: RunResult) -> Iterator[Any]:
    rows = [
        ("verdict", f"{result.verdict} (limit {ms(result.latency_limit_ms)} on {result.device})"),
        ("model.onnx", f"{spoken(result.scheme)}, {ms(result.latency_ms)}, {megabytes(result.size_bytes)}"),
        ("accuracy", f"{percent(result.accuracy)} (fp32 {percent(result.fp32_accuracy)})"),
        ("fp32 size", megabytes(result.fp32_size_bytes)),
        ("candidate", " ".join(f"{k}={v}" for k, v in result.candidate.items())),
        ("bundle", f"{result.folder}: " + ", ".join(f.name for f in result.files)),
        ("elapsed", f"{result.elapsed_s:.0f} s"),
    ]
    yield table(result.name, ("what", "found"), rows)


# fmt: off
_COLUMNS: dict[type, tuple[str, ...]] = {
    DeviceSummary: ("id", "description", "connection", "runtime"),
    TableSummary: (
        "device", "runtime", "kernels", "networks", "blocks", "runs", "size_bytes", "updated_at", "problem",
    ),
}
# fmt: on
_VIEWS: dict[type, Callable[[Any], Iterator[Any]]] = {
    ProfileResult: _profile,
    Prediction: _prediction,
    SearchResult: _search,
    QuantizeResult: _quantize,
    ValidateResult: _validate,
    CheckResult: _gate,
    DeviceCheck: _check,
    TableShown: _table_shown,
    TrainResult: _train,
    RunResult: _run,
    CleanResult: _clean,
}
