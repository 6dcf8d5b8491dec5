"""The options of the command line: types, options that several commands share, the program's own flags."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from edgenas.errors import UsageError
from edgenas.workspace import CONFIGURATION_FILE, Workspace, read_configuration

PROGRAM_FLAGS = {
    "as_json": ("--json", "Print the result as JSON on stdout."),
    "quiet": ("--quiet", "Show no progress and no messages."),
    "debug": ("--debug", "Show a traceback where something fails."),
}
Command = Callable[..., Any]


class Flags:
    """The program's own flags, wherever on the line they stood."""

    def __init__(self) -> None:
        self.values: dict[str, bool] = {}
        self.clear()

    def clear(self) -> None:
        """Before another command line is read."""
        self.values.update(dict.fromkeys(PROGRAM_FLAGS, False))


FLAGS = Flags()


def program_flags(command: Command) -> Command:
    """Accepts the program's flags on this command; they are noted, never passed on."""

    def note(name: str) -> Callable[[click.Context, click.Parameter, bool], None]:
        def callback(_context: click.Context, _parameter: click.Parameter, value: bool) -> None:
            FLAGS.values[name] = FLAGS.values[name] or value

        return callback

    for name, (flag, text) in PROGRAM_FLAGS.items():
        # Eager: the flags must be known before any other option can fail.
        command = click.option(
            flag, name, is_flag=True, expose_value=False, callback=note(name), is_eager=True, help=text
        )(command)
    return command


def configuration_option(command: Command) -> Command:
    """Options may stand in a TOML section that is called like the command; those on the line win."""

    def read(context: click.Context, _parameter: click.Parameter, path: Path | None) -> None:
        found = Workspace().configuration() if path is None else read_configuration(path)
        section = found.get(context.info_name or "", {})
        known = sorted({option.name or "" for option in context.command.params} - set(PROGRAM_FLAGS))
        strange = ", ".join(sorted(set(section) - set(known))) if isinstance(section, dict) else repr(section)
        if strange:
            raise UsageError(
                f"[{context.info_name}] of {path or CONFIGURATION_FILE} has {strange}",
                hint=f"it may have: {', '.join(known)}",
            )
        device = {"device": found["device"]} if "device" in found else {}
        context.default_map = {**device, **section}

    return click.option(
        "--config",
        type=EXISTING,
        callback=read,
        is_eager=True,
        expose_value=False,
        help=f"A TOML file with these options (default: {CONFIGURATION_FILE} where there is one).",
    )(command)


class Positive(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.5
    """A number above 0 of some unit."""

    def __init__(self, name: str, unit: str) -> None:
        self.name, self.unit = name, unit

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            number = float(value)
        except ValueError:
            self.fail(f"'{value}' is not a number of {self.unit}", param, ctx)
        if not 0 < number < float("inf"):
            self.fail(f"{value} must be above 0", param, ctx)
        return number


class Duration(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.5
    """Seconds, given as 90s, 10m, 1h or 30d."""

    name = "duration"
    units = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}  # noqa: RUF012 - click declares it on the instance

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        number, unit = (value[:-1], value[-1]) if value[-1:] in self.units else (value, "s")
        try:
            seconds = float(number) * self.units[unit]
        except ValueError:
            self.fail(f"'{value}' is not a duration such as 90s, 10m, 1h or 30d", param, ctx)
        if not 0 < seconds < float("inf"):
            self.fail(f"'{value}' must be above 0", param, ctx)
        return seconds


class Listed(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.5
    """Values with commas between them."""

    name = "list"

    def __init__(self, *allowed: str) -> None:
        self.allowed = allowed

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        if isinstance(value, tuple):
            return value
        items = tuple(item.strip() for item in str(value).split(",") if item.strip())
        unknown = [item for item in items if item not in self.allowed]
        if unknown or not items:
            self.fail(f"'{value}': choose from {', '.join(self.allowed)}", param, ctx)
        return items


MS, DURATION, EXISTING = Positive("ms", "milliseconds"), Duration(), click.Path(path_type=Path)
MB, COUNT = Positive("mb", "megabytes"), Positive("number", "operations or weights")
SECONDS = Positive("seconds", "seconds")
THREADS = click.IntRange(1, 1024)
device_option = click.option("--device", metavar="ID", help="The device; see `edgenas device list`.")
threads_option = click.option("--threads", type=THREADS, help="Threads to run with (default: the device's).")
seed_option = click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
output_option = click.option("--output", type=EXISTING, help="Where to write the result.")


def preprocessing_options(command: Command) -> Command:
    """How images become inputs, where the model's metadata does not say it."""
    options = (
        click.option("--mean", metavar="R,G,B", help="Mean in (x / scale - mean) / std."),
        click.option("--std", metavar="R,G,B", help="Standard deviation in (x / scale - mean) / std."),
        click.option("--scale", type=float, help="Scale in (x / scale - mean) / std."),
        click.option("--input-size", metavar="HxW", help="Input size where the model does not fix it."),
        click.option("--resize", type=click.Choice(["squash", "crop"])),
        click.option("--layout", type=click.Choice(["NCHW", "NHWC"])),
        click.option("--channels", type=click.Choice(["rgb", "bgr", "gray"])),
        click.option("--labels", type=EXISTING, help="labels.csv for a flat image folder."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def gate_limits(command: Command) -> Command:
    """What the gate allows; ``[check]`` of ``edgenas.toml`` has the defaults."""
    options = (
        click.option("--latency-ms", type=MS, help="Latency that no model may exceed."),
        click.option(
            "--latency-statistic",
            type=click.Choice(["repeatable", "p50", "p90", "p99"]),
            help="What --latency-ms limits (default: the repeatable latency).",
        ),
        click.option("--size-mb", type=float, help="Size in MB that no model may exceed."),
        click.option("--memory-mb", type=float, help="Peak memory in MB that no model may exceed."),
        click.option("--min-accuracy", type=float, help="Accuracy that no model may miss, as a ratio."),
        click.option("--max-slower", type=float, help="Share of latency that may be added (default: 0.03)."),
        click.option("--max-larger", type=float, help="Share of size that may be added (default: 0.01)."),
        click.option("--max-more-memory", type=float, help="Share of memory to be added (default: 0.10)."),
        click.option("--max-drop", type=float, help="Accuracy that may be lost, as a ratio (default: 0.01)."),
        click.option(
            "--tolerate",
            multiple=True,
            type=click.Choice(["inconclusive", "incomparable"]),
            help="A verdict that exits with 0, too; may be repeated.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command
