"""The command line: parse, call one stage, print, exit. Nothing but it and its options imports click.

Results go to stdout, everything else to stderr. Exit codes: 0 done, 1 failed, 2 wrong usage or
configuration, 3 a gate or budget was not met.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from edgenas import __version__
from edgenas.cli_options import (
    COUNT,
    DURATION,
    EXISTING,
    FLAGS,
    MB,
    MS,
    SECONDS,
    THREADS,
    Command,
    Listed,
    configuration_option,
    device_option,
    gate_limits,
    output_option,
    preprocessing_options,
    program_flags,
    seed_option,
    threads_option,
)
from edgenas.errors import BudgetNotMetError, EdgeNASError, UsageError, unusable_file


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="edgenas")
@program_flags
def cli() -> None:
    """Search, quantize and validate ONNX models under a latency budget that your device measured.

    \b
    Example:
      edgenas demo
    """


def _command(group: click.Group, name: str | None = None) -> Callable[[Command], click.Command]:
    def register(function: Command) -> click.Command:
        return group.command(name or function.__name__.strip("_").replace("_", "-"))(program_flags(function))

    return register


@cli.group()
@program_flags
def device() -> None:
    """Devices: list, show and check them.

    \b
    Example:
      edgenas device list
    """


@_command(device, "list")
def device_list() -> Any:
    """List the device profiles.

    \b
    Example:
      edgenas device list
    """
    from edgenas.pipeline import device as stage

    return stage.device_list()


@_command(device, "show")
@click.argument("device_id", metavar="ID")
def device_show(device_id: str) -> Any:
    """Show one device profile.

    \b
    Example:
      edgenas device show rpi4
    """
    from edgenas.pipeline import device as stage

    return stage.device_show(device_id)


@_command(device, "check")
@click.argument("device_id", metavar="ID")
@threads_option
def device_check(device_id: str, threads: int | None) -> Any:
    """Examine a device: runtime, governor, temperature, memory and noise floor.

    \b
    Example:
      edgenas device check local
    """
    from edgenas.pipeline import device as stage

    return stage.device_check(device_id, threads=threads)


@_command(device, "add")
@click.argument("device_id", metavar="ID")
@click.option(
    "--host", required=True, metavar="H", help="What ssh calls it: a name of ~/.ssh/config or user@host."
)
@click.option("--profile", metavar="P", help="The kind of board (default: ID, where it is a profile's name).")
@click.option(
    "--runtime",
    type=click.Choice(["onnxruntime", "openvino"]),
    help="What executes the models there (default: the profile's).",
)
def device_add(device_id: str, host: str, **options: Any) -> Any:
    """Name a device that ssh reaches.

    \b
    Example:
      edgenas device add kitchen --profile rpi4 --host pi@raspberrypi.local
    """
    from edgenas.pipeline import device_setup as stage

    return stage.device_add(device_id, host=host, **options)


@_command(device, "setup")
@click.argument("device_id", metavar="ID")
@click.option("--remove", is_flag=True, help="Remove what was installed there.")
def device_setup(device_id: str, remove: bool) -> Any:
    """Install the agent's needs on a device, in an environment of its own.

    \b
    Example:
      edgenas device setup kitchen
    """
    from edgenas.pipeline import device_setup as stage

    return stage.device_setup(device_id, remove=remove)


@_command(device, "start")
@click.argument("device_id", metavar="ID")
def device_start(device_id: str) -> Any:
    """Start a virtual board; its system is built the first time.

    \b
    Example:
      edgenas device start virtual-a72
    """
    from edgenas.pipeline import device_setup as stage

    return stage.device_start(device_id)


@_command(device, "stop")
@click.argument("device_id", metavar="ID")
def device_stop(device_id: str) -> Any:
    """Stop a virtual board.

    \b
    Example:
      edgenas device stop virtual-a72
    """
    from edgenas.pipeline import device_setup as stage

    return stage.device_stop(device_id)


@_command(cli)
@click.option("--device", metavar="ID", multiple=True, help="The device; several are measured side by side.")
@click.option("--space", multiple=True, help="A search space to cover; may be repeated.")
@click.option("--model", multiple=True, type=EXISTING, help="An ONNX model to measure; may be repeated.")
@click.option("--precision", type=Listed("fp32", "int8"), default="fp32,int8", show_default=True)
@click.option(
    "--time-limit",
    "time_limit_s",
    type=DURATION,
    help="Stop measuring after this long, such as 20m; a default profile stops after 10m.",
)
@threads_option
@click.option("--classes", type=click.IntRange(2), help="Outputs of the spaces' networks (default: 10).")
@seed_option
def profile(device: tuple[str, ...], **options: Any) -> Any:
    """Measure kernels and networks on a device into its latency table; always resumes.

    \b
    Example:
      edgenas profile --device local --space mobilenetv3-demo
    """
    from edgenas.pipeline.profile import profile as stage
    from edgenas.pipeline.profile_several import profile_several

    if len(device) > 1:
        return profile_several(device, **options)
    return stage(device=device[0] if device else None, **options)


@cli.group()
@program_flags
def table() -> None:
    """Latency tables: look into them, copy, compare and verify them.

    \b
    Example:
      edgenas table list
    """


@_command(table, "list")
def table_list() -> Any:
    """List the workspace's tables.

    \b
    Example:
      edgenas table list
    """
    from edgenas.pipeline import table as stage

    return stage.table_list()


@_command(table, "show")
@click.argument("device_id", metavar="[ID]", required=False)
@click.option(
    "--rows",
    type=click.Choice(["latencies", "traces", "blocks"]),
    help="Show single measurements too, with their provenance.",
)
@click.option(
    "--limit", type=click.IntRange(1), default=50, show_default=True, help="How many rows, the newest first."
)
def table_show(device_id: str | None, **options: Any) -> Any:
    """Show what a table holds and how well it covers that.

    \b
    Example:
      edgenas table show local --rows latencies
    """
    from edgenas.pipeline import table as stage

    return stage.table_show(device_id, **options)


@_command(table, "export")
@click.argument("device_id", metavar="[ID]", required=False)
@click.option("--output", type=EXISTING, required=True, help="A .json file, or a folder for CSV or Parquet.")
@click.option(
    "--format",
    type=click.Choice(["json", "csv", "parquet"]),
    help="Default: json where the output ends in .json, else csv.",
)
def table_export(device_id: str | None, **options: Any) -> Any:
    """Write a table as JSON, CSV or Parquet.

    \b
    Example:
      edgenas table export local --output local.json
    """
    from edgenas.pipeline import table as stage

    return stage.table_export(device_id, **options)


@_command(table, "import")
@click.argument("source", type=EXISTING)
@device_option
def table_import(source: Path, device: str | None) -> Any:
    """Add the rows of another table: SQLite, any export, or once-for-all's YAML.

    \b
    Example:
      edgenas table import local.json --device local
    """
    from edgenas.pipeline import table as stage

    return stage.table_import(source, device=device)


@_command(table, "diff")
@click.argument("left", metavar="ID")
@click.argument("right", metavar="ID")
def table_diff(left: str, right: str) -> Any:
    """Compare the networks that two tables have in common.

    \b
    Example:
      edgenas table diff local kitchen
    """
    from edgenas.pipeline import table as stage

    return stage.table_diff(left, right)


@_command(table, "verify")
@click.argument("device_id", metavar="[ID]", required=False)
def table_verify(device_id: str | None) -> Any:
    """Examine a table's file and the checksum of every row.

    \b
    Example:
      edgenas table verify local
    """
    from edgenas.pipeline import table as stage

    return stage.table_verify(device_id)


@_command(cli)
@click.argument("model", type=EXISTING)
@device_option
@threads_option
@click.option("--html", type=EXISTING, help="Write the breakdown by layer and kernel as one page.")
def predict(**options: Any) -> Any:
    """Predict a model's latency, with an interval, by layer and by kernel.

    \b
    Example:
      edgenas predict model.onnx --device local --html latency.html
    """
    from edgenas.pipeline.predict import predict as stage

    return stage(**options)


@_command(cli)
@click.option("--space", required=True, help="The search space.")
@click.option("--data", required=True, help="An image folder, .npz, IDX folder, .tsv of texts, named set.")
@click.option("--folder", type=EXISTING, help="Where checkpoints go (default: runs/train-SPACE-DATA).")
@click.option("--epochs", type=click.IntRange(1), help="Train this many epochs.")
@click.option("--cpu-seconds", type=SECONDS, help="Train for this much CPU time.")
@click.option("--latency-ms", type=MS, help="Train only networks just below this limit.")
@device_option
@threads_option
@click.option("--torch-device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@seed_option
def train(**options: Any) -> Any:
    """Train a weight-sharing supernet.

    \b
    Example:
      edgenas train --space mobilenetv3-demo --data digits
    """
    from edgenas.pipeline.train import train as stage

    return stage(**options)


@_command(cli)
@click.option(
    "--latency-ms", type=MS, multiple=True, required=True, help="The hard limit; once, or once a device."
)
@click.option("--device", multiple=True, metavar="ID", help="A device; may be repeated.")
@click.option("--space", help="The search space.")
@click.option(
    "--strategy",
    metavar="NAME",
    default="evolution",
    show_default=True,
    help="How candidates are proposed; the names are listed below.",
)
@click.option(
    "--accuracy",
    metavar="NAME[:DETAIL]",
    default="auto",
    show_default=True,
    help="supernet, predictor, train, proxy, ...; auto: the supernet where --checkpoint is given.",
)
@click.option(
    "--proxy", metavar="NAME", help="Rank by macs, parameters, synflow, naswot or zen: no accuracy, no data."
)
@click.option(
    "--objective",
    multiple=True,
    metavar="NAME",
    help="Optimised beside accuracy: latency_ms[:ID], size_mb, memory_mb, macs, parameters; may be repeated.",
)
@click.option("--size-mb", type=MB, help="A hard limit on the weights, in MB.")
@click.option("--memory-mb", type=MB, help="A hard limit on weights and the largest op's values, in MB.")
@click.option("--macs", type=COUNT, help="A hard limit on multiply-accumulates, such as 50e6.")
@click.option("--parameters", type=COUNT, help="A hard limit on the number of weights.")
@click.option(
    "--weight",
    type=(str, float),
    multiple=True,
    metavar="NAME LAMBDA",
    help="Minimise 1 - accuracy + LAMBDA x NAME within the limits; may be repeated.",
)
@click.option("--shrink", is_flag=True, help="First drop options slower than a more capable one.")
@click.option(
    "--pressure",
    type=click.Choice(["constant", "relaxing"]),
    default="constant",
    show_default=True,
    help="relaxing: limits are stricter early.",
)
@click.option("--checkpoint", type=EXISTING, help="A supernet from `edgenas train`.")
@click.option("--data", help="The data that the supernet was trained on.")
@click.option("--evaluations", type=click.IntRange(1), help="How many candidates are scored.")
@click.option("--workers", metavar="N|ray://...", help="Train and score candidates on Ray workers.")
@click.option(
    "--hyperparameters", is_flag=True, help="With --accuracy train: search those of the training as well."
)
@threads_option
@seed_option
def search(**options: Any) -> Any:
    """Search the best network under hard limits.

    \b
    Strategies:
      evolution             elites of every option; guided by a surrogate where evaluations are few
      regularized-evolution tournaments among the young, the oldest dies
      random                spread evenly within the limits
      local-search          greedy, from neighbour to neighbour, with restarts
      simulated-annealing   takes worse neighbours, ever less often
      bayesian              Optuna's TPE (needs edgenas[optuna])
      bayesian-gp           Optuna's Gaussian process (needs edgenas[optuna,train])
      reinforce             a controller that learns by the policy gradient
      gradient              architecture weights against predicted accuracy and expected latency

    \b
    Example:
      edgenas search --latency-ms 20
    """
    from edgenas.pipeline.search import search as stage

    return stage(**options)


@_command(cli)
@click.argument("model", type=EXISTING)
@device_option
@click.option("--calibration", required=True, help="Images to calibrate with; labelled ones also select.")
@click.option(
    "--max-drop", type=float, default=0.01, show_default=True, help="Largest accuracy loss, as a ratio."
)
@click.option("--latency-ms", type=MS, help="A hard latency limit.")
@click.option(
    "--engine",
    "engines",
    multiple=True,
    default=("edgenas",),
    help="Let other candidates compete: onnxruntime's, nncf's, float16; may be repeated.",
)
@click.option("--ort", is_flag=True, help="Write OUT.ort too, ONNX Runtime's own format.")
@click.option("--metric", metavar="MODULE:FUNCTION", help="Your own measure of the outputs, for detectors.")
@output_option
@threads_option
@seed_option
@preprocessing_options
def quantize(**options: Any) -> Any:
    """Find the best int8 model for a device, by measurement.

    \b
    Example:
      edgenas quantize model.onnx --device local --calibration images/
    """
    from edgenas.pipeline.quantize import quantize as stage

    return stage(**options)


@_command(cli)
@click.argument("model", type=EXISTING)
@device_option
@click.option("--reference", type=EXISTING, help="A model to compare the outputs with.")
@click.option("--data", help="Labelled images to score.")
@click.option("--latency-ms", type=MS, help="Latency limit.")
@click.option("--size-mb", type=float, help="Size limit in MB.")
@click.option("--max-drop", type=float, help="Largest accuracy loss against the reference, as a ratio.")
@threads_option
@preprocessing_options
def validate(**options: Any) -> Any:
    """Measure a model on the device and judge it against limits.

    \b
    Example:
      edgenas validate model.onnx --device local --latency-ms 20
    """
    from edgenas.pipeline.validate import validate as stage

    return stage(**options)


@_command(cli)
@click.argument("models", nargs=-1, required=True, metavar="[NAME=]MODEL...")
@click.option("--baseline", type=EXISTING, required=True, help="The committed baseline, a JSON file.")
@device_option
@click.option("--table", type=EXISTING, help="Predict from this exported table; no device is used.")
@click.option("--update", is_flag=True, help="Accept the models as the new baseline.")
@click.option("--data", help="Labelled images, to judge accuracy too.")
@gate_limits
@click.option("--markdown", "markdown_to", type=EXISTING, help="Write a summary for a pull request.")
@click.option("--junit", "junit_to", type=EXISTING, help="Write JUnit XML.")
@click.option("--json-file", "json_to", type=EXISTING, help="Write the result as JSON.")
@click.option("--history", type=EXISTING, help="Add the result to this file; `report --checks` shows it.")
@threads_option
def check(**options: Any) -> Any:
    """Fail when models became larger, slower or worse than their baseline.

    \b
    Example:
      edgenas check model.onnx --baseline ci/baseline.json
    """
    from edgenas.pipeline.check import check as stage

    result = stage(**options)
    if os.environ.get("GITHUB_ACTIONS") == "true":
        from edgenas.reporting.gate import github_annotations

        click.echo(github_annotations(result), nl=False, err=True)
    return result


@cli.group()
@program_flags
def ci() -> None:
    """The gate in a repository's CI.

    \b
    Example:
      edgenas ci init
    """


@_command(ci, "init")
@click.option("--force", is_flag=True, help="Replace files that differ.")
def ci_init(force: bool) -> Any:
    """Copy the gate's action and script into this repository.

    \b
    Example:
      edgenas ci init
    """
    from edgenas.pipeline.ci_init import ci_init as stage

    return stage(force=force)


@_command(cli)
@click.argument("run", type=EXISTING, required=False)
@click.option("--table", metavar="ID", help="Report on a device's latency table.")
@click.option("--checks", type=EXISTING, help="Show the trend of this history (of `check --history`).")
@output_option
def report(run: Path | None, table: str | None, checks: Path | None, output: Path | None) -> Any:
    """Write one self-contained HTML file about a run, a table or the gate.

    \b
    Example:
      edgenas report runs/demo
    """
    from edgenas.pipeline.report import report as stage

    return stage(run, table=table, checks=checks, output=output)


@_command(cli)
@configuration_option
@device_option
@click.option("--latency-ms", type=MS, required=True, help="The hard limit.")
@click.option("--data", required=True, help="An image folder, .npz, IDX folder, .tsv of texts, named set.")
@click.option("--space", help="The search space (default: by image size).")
@click.option("--name", help="The folder under runs/ (default: from data, device and limit).")
@click.option("--train-seconds", type=SECONDS, help="CPU seconds of supernet training.")
@click.option("--final-seconds", type=SECONDS, help="CPU seconds of training the winner.")
@click.option("--evaluations", type=click.IntRange(1), help="How many candidates are scored.")
@click.option(
    "--profile-time-limit",
    "profile_time_limit_s",
    type=DURATION,
    help="Longest time on the device for the table.",
)
@threads_option
@seed_option
def run(**options: Any) -> Any:
    """From data and a budget to a validated int8 model, all stages, resumable.

    \b
    Example:
      edgenas run --device local --latency-ms 2 --data cifar10.npz
    """
    from edgenas.pipeline.run import run as stage

    return stage(**options)


@_command(cli)
@device_option
@click.option("--latency-ms", type=MS, help="The hard limit (default: chosen from what the device measured).")
@click.option(
    "--threads",
    type=THREADS,
    default=1,
    show_default=True,
    help="Threads to run with; networks this small gain nothing from more.",
)
@seed_option
def demo(**options: Any) -> Any:
    """The whole product on real data that scikit-learn carries, in minutes, no download.

    \b
    Example:
      edgenas demo
    """
    from edgenas.pipeline.demo import demo as stage

    return stage(**options)


@_command(cli)
@click.option("--yes", is_flag=True, help="Remove what is otherwise only shown.")
@click.option(
    "--older-than",
    "older_than_s",
    type=DURATION,
    default="30d",
    show_default=True,
    help="How long nothing has changed in a run that goes.",
)
def clean(**options: Any) -> Any:
    """Show the caches and old runs of this workspace; remove them with --yes.

    \b
    Example:
      edgenas clean --older-than 30d
    """
    from edgenas.pipeline.clean import clean as stage

    return stage(**options)


def _emit(result: object) -> None:
    if result is None:
        return
    if not FLAGS.values["as_json"]:
        from edgenas.console import show

        show(result)
        return
    import msgspec

    plain = {"output": str(result)} if isinstance(result, Path) else msgspec.to_builtins(result, enc_hook=str)
    click.echo(json.dumps(plain, allow_nan=False))


def _fail(error: EdgeNASError) -> int:
    if FLAGS.values["debug"]:
        import traceback

        traceback.print_exception(error)
    if FLAGS.values["as_json"]:
        click.echo(json.dumps({"error": error.as_dict()}))
    else:
        from edgenas.console import show_error

        if isinstance(error, BudgetNotMetError) and error.result is not None:
            _emit(error.result)
        show_error(error)
    return error.exit_code


def _exit_code(result: object) -> int:
    """3 where a verdict is anything but a pass, 1 where a table is damaged."""
    if not getattr(result, "intact", True):
        return 1
    passed = getattr(result, "verdict", "pass") == "pass"
    return 0 if getattr(result, "accepted", passed) else 3


def _usage_error(error: click.ClickException) -> int:
    if FLAGS.values["as_json"]:
        failed = UsageError(error.format_message(), hint="edgenas --help")
        click.echo(json.dumps({"error": failed.as_dict()}))
    else:
        error.show()
    return error.exit_code


def invoke(arguments: Sequence[str] | None = None) -> int:
    """Runs one command line and returns its exit code.

    Args:
        arguments: the words after the program's name; those of this process when omitted.
    """
    from edgenas.console import Terminal
    from edgenas.progress import watched_by

    FLAGS.clear()
    # Before click parses, because an error in parsing must already be shown as asked.
    FLAGS.values["as_json"] = "--json" in (sys.argv[1:] if arguments is None else arguments)
    try:
        with watched_by(Terminal(quiet=lambda: FLAGS.values["quiet"])):
            result = cli.main(args=arguments, prog_name="edgenas", standalone_mode=False)
            if isinstance(result, int):  # click's own exit, such as after --help
                return result
            _emit(result)
            return _exit_code(result)
    except click.exceptions.Abort:
        click.echo("stopped; the same command goes on from what was finished", err=True)
        return 1
    except click.ClickException as error:
        return _usage_error(error)
    except EdgeNASError as error:
        return _fail(error)
    except BrokenPipeError:  # whoever read the output has seen enough, such as head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        return _fail(unusable_file(error))


def main() -> None:
    """The console script."""
    sys.exit(invoke())
