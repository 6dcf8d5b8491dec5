"""The bundle: what a run hands over, with a manifest that proves what every file is."""

from __future__ import annotations

import importlib.metadata
import platform
import shutil
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

import edgenas
from edgenas.datasets import Preprocessing
from edgenas.datasets import infer as infer_script
from edgenas.datasets import infer_text as infer_text_script
from edgenas.errors import ArtifactError
from edgenas.files import file_sha256, replaced, write_atomically
from edgenas.records import BundleFile, Environment, Record, ValidateResult, Verdict

MANIFEST_VERSION = 1
MANIFEST = "manifest.json"
REPORT = "report.html"
INFER = "infer.py"
MODEL, INT8_MODEL, FP32_MODEL = "model.onnx", "model-int8.onnx", "model-fp32.onnx"
PACKAGES = ("numpy", "onnx", "onnxruntime", "openvino", "torch", "scikit-learn", "pillow")


class BundleModel(Record):
    """One model of the bundle as the device measured it; accuracy is None without labelled images."""

    file: str
    sha256: str
    size_bytes: int
    accuracy: float | None
    latency_ms: float
    latency_p50_ms: float
    latency_p90_ms: float
    latency_p99_ms: float | None
    latency_relative_halfwidth: float
    peak_memory_bytes: int
    load_ms: float


class Manifest(Record):
    """What the bundle is, where its numbers were measured and how it came to be.

    ``limits`` are what was asked, ``models`` what came out; ``files`` are all files but this one.
    ``preprocessing`` is None for models of texts, whose metadata hold the vocabulary.
    """

    schema_version: int
    name: str
    created_at: str
    edgenas_version: str
    versions: dict[str, str]
    verdict: Verdict
    scheme: str
    device: str
    threads: int
    environment: Environment
    limits: dict[str, float]
    models: tuple[BundleModel, ...]
    labels: tuple[str, ...]
    preprocessing: Preprocessing | None
    space: str
    candidate: dict[str, Any]
    seeds: dict[str, int]
    data: dict[str, str]
    files: tuple[BundleFile, ...]


def write_bundle(
    folder: Path,
    *,
    name: str,
    model: Path,
    fp32_model: Path,
    int8_model: Path | None,
    validated: Mapping[str, ValidateResult],
    scheme: str,
    limits: Mapping[str, float],
    preprocessing: Preprocessing | None,
    labels: Sequence[str],
    space: str,
    candidate: Mapping[str, Any],
    seeds: Mapping[str, int],
    data: Mapping[str, str],
) -> tuple[BundleFile, ...]:
    """Puts models, script and manifest into ``folder``; every file appears whole or not at all.

    Args:
        model: the winner; ``int8_model`` is the best int8 one (None where no scheme worked).
        validated: ``model.onnx``, ``model-int8.onnx`` and ``model-fp32.onnx`` as the device ran
            them; the first one is needed, its verdict and environment are the bundle's.
        preprocessing: how images become the input; None for texts.
        limits: what was asked, such as ``{"latency_ms": 20.0}``.
        data: what it was trained on, such as ``{"name": "digits", "sha256": ...}``.

    Returns:
        The files with their hashes, the manifest among them. A ``report.html`` that is already in
        the folder belongs to the bundle.

    Raises:
        ArtifactError: a model to be copied is missing.
    """
    script = Path(infer_text_script.__file__ if preprocessing is None else infer_script.__file__)
    files = _placed(folder, {MODEL: model, FP32_MODEL: fp32_model, INT8_MODEL: int8_model, INFER: script})
    winner = validated[MODEL]
    manifest = Manifest(
        schema_version=MANIFEST_VERSION,
        name=name,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        edgenas_version=edgenas.__version__,
        versions=installed_versions(),
        verdict=winner.verdict,
        scheme=scheme,
        device=winner.device,
        threads=winner.threads,
        environment=winner.environment,
        limits=dict(limits),
        models=tuple(_model(file, validated[file.name]) for file in files if file.name in validated),
        labels=tuple(labels),
        preprocessing=preprocessing,
        space=space,
        candidate=dict(candidate),
        seeds=dict(seeds),
        data=dict(data),
        files=files,
    )
    _write_manifest(folder, manifest)
    return (*files, describe_file(folder / MANIFEST))


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a bundle.

    Raises:
        ArtifactError: it is missing, damaged or from a newer version.
    """
    path = folder / MANIFEST
    try:
        content = path.read_bytes()
        version = msgspec.json.decode(content, type=_Versioned).schema_version
        if version > MANIFEST_VERSION:
            raise ArtifactError(
                f"{path} has version {version}; this EdgeNAS reads up to {MANIFEST_VERSION}",
                hint="pip install --upgrade edgenas",
            )
        return msgspec.json.decode(content, type=Manifest)
    except OSError as error:
        raise ArtifactError(f"{folder} is not a bundle: {MANIFEST} cannot be read") from error
    except msgspec.DecodeError as error:
        raise ArtifactError(f"{path} is damaged: {error}") from error


def verify_bundle(folder: Path) -> Manifest:
    """Hashes every file of a bundle again.

    Raises:
        ArtifactError: a file is missing or is not what the manifest says.
    """
    manifest = read_manifest(folder)
    wrong = [reason for file in manifest.files if (reason := _difference(folder, file))]
    if wrong:
        raise ArtifactError(f"{folder} is not as it was written: {'; '.join(wrong)}")
    return manifest


def refresh_manifest(folder: Path, name: str) -> None:
    """Records that a file of the bundle was written anew; nothing happens without a manifest."""
    if not (folder / MANIFEST).is_file():
        return
    manifest = read_manifest(folder)
    others = tuple(file for file in manifest.files if file.name != name)
    _write_manifest(folder, msgspec.structs.replace(manifest, files=(*others, describe_file(folder / name))))


def describe_file(path: Path) -> BundleFile:
    """Name, hash and size of one file."""
    return BundleFile(name=path.name, sha256=file_sha256(path), size_bytes=path.stat().st_size)


def installed_versions(packages: Iterable[str] = PACKAGES) -> dict[str, str]:
    """Versions of Python and of those packages that are installed on the host."""
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


class _Versioned(Record):
    schema_version: int


def _model(file: BundleFile, validated: ValidateResult) -> BundleModel:
    return BundleModel(
        file=file.name,
        sha256=file.sha256,
        size_bytes=file.size_bytes,
        accuracy=validated.accuracy,
        latency_ms=validated.latency_ms,
        latency_p50_ms=validated.latency_p50_ms,
        latency_p90_ms=validated.latency_p90_ms,
        latency_p99_ms=validated.latency_p99_ms,
        latency_relative_halfwidth=validated.latency_relative_halfwidth,
        peak_memory_bytes=validated.peak_memory_bytes,
        load_ms=validated.load_ms,
    )


def _placed(folder: Path, wanted: Mapping[str, Path | None]) -> tuple[BundleFile, ...]:
    """Copies what there is into ``folder``, where nothing of an earlier bundle stays.

    A report that stands there belongs to it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for target, source in wanted.items():
        if source is None:
            (folder / target).unlink(missing_ok=True)
        else:
            _place(source, folder / target)
    present = [*(target for target, source in wanted.items() if source is not None), REPORT]
    return tuple(describe_file(folder / found) for found in present if (folder / found).is_file())


def _place(source: Path, target: Path) -> None:
    if not source.is_file():
        raise ArtifactError(f"{source} is missing, so {target.name} cannot be written")
    if target.exists() and source.samefile(target):
        return
    with replaced(target) as unfinished:
        shutil.copyfile(source, unfinished)


def _write_manifest(folder: Path, manifest: Manifest) -> None:
    write_atomically(folder / MANIFEST, msgspec.json.format(msgspec.json.encode(manifest), indent=2))


def _difference(folder: Path, file: BundleFile) -> str:
    path = folder / file.name
    if Path(file.name).name != file.name:
        return f"'{file.name}' is not a file name"
    if not path.is_file():
        return f"{file.name} is missing"
    found = describe_file(path)
    return (
        "" if found == file else f"{file.name} has sha256 {found.sha256[:12]}..., not {file.sha256[:12]}..."
    )
