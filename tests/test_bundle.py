from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgenas.datasets import Preprocessing
from edgenas.errors import ArtifactError
from edgenas.pipeline.bundle import read_manifest, refresh_manifest, verify_bundle, write_bundle
from edgenas.records import BundleFile, Environment, ValidateResult

ENVIRONMENT = Environment(
    architecture="x86_64", cpu_model="CPU", cpu_features=("avx2",), cores=2, memory_bytes=1 << 33,
    operating_system="Linux", python_version="3.11", runtime="onnxruntime", runtime_version="1.32",
    supported_ir_version=13, supported_opset=26,
)  # fmt: skip


def validated(model: str, accuracy: float | None = 0.9) -> ValidateResult:
    return ValidateResult(
        model=model, device="local", verdict="pass", latency_ms=1.5, latency_p50_ms=1.6, latency_p90_ms=1.9,
        latency_p99_ms=2.4, latency_relative_halfwidth=0.01, accuracy=accuracy, reference_accuracy=None,
        agreement=None, output_distance=None, size_bytes=3, peak_memory_bytes=1000, load_ms=4.0, threads=1,
        environment=ENVIRONMENT,
    )  # fmt: skip


def write(folder: Path, sources: Path, *, int8: bool = True) -> tuple[BundleFile, ...]:
    sources.mkdir(exist_ok=True)
    for name in ("winner", "float", "int8"):
        (sources / f"{name}.onnx").write_bytes(name.encode())
    names = ["model.onnx", "model-fp32.onnx", *(["model-int8.onnx"] if int8 else [])]
    return write_bundle(
        folder,
        name="first",
        model=sources / "winner.onnx",
        fp32_model=sources / "float.onnx",
        int8_model=sources / "int8.onnx" if int8 else None,
        validated={name: validated(name) for name in names},
        scheme="u8s8",
        limits={"latency_ms": 2.0},
        preprocessing=Preprocessing(height=32, width=32, mean=(0.5,) * 3, std=(0.5,) * 3),
        labels=["cat", "dog"],
        space="mobilenetv3-demo",
        candidate={"resolution": 32},
        seeds={"search": 0},
        data={"name": "digits", "sha256": "ab"},
    )


def test_a_bundle_verifies_and_says_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "report.html").write_text("<html></html>")
    files = write(tmp_path / "run", tmp_path / "work")
    assert [file.name for file in files] == [
        "model.onnx", "model-fp32.onnx", "model-int8.onnx", "infer.py", "report.html", "manifest.json",
    ]  # fmt: skip
    manifest = verify_bundle(tmp_path / "run")
    assert manifest == read_manifest(tmp_path / "run")
    assert (manifest.verdict, manifest.limits, manifest.labels) == (
        "pass",
        {"latency_ms": 2.0},
        ("cat", "dog"),
    )
    assert [model.accuracy for model in manifest.models] == [0.9, 0.9, 0.9]
    assert manifest.models[0].sha256 == files[0].sha256
    assert {"python", "numpy", "onnx", "onnxruntime"} <= manifest.versions.keys()
    plain = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert plain["preprocessing"]["height"] == 32
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == sorted(file.name for file in files)


def test_writing_again_in_place_changes_nothing_but_the_time(tmp_path: Path) -> None:
    first = write(tmp_path / "run", tmp_path / "work", int8=False)
    again = write(tmp_path / "run", tmp_path / "work", int8=False)
    assert first[:-1] == again[:-1]
    assert "model-int8.onnx" not in {file.name for file in again}


def test_changed_and_missing_files_are_named(tmp_path: Path) -> None:
    write(tmp_path, tmp_path / "work")
    (tmp_path / "model.onnx").write_bytes(b"other")
    (tmp_path / "infer.py").unlink()
    with pytest.raises(ArtifactError, match=r"model\.onnx has sha256 .*; infer\.py is missing"):
        verify_bundle(tmp_path)


def test_a_new_report_can_be_recorded(tmp_path: Path) -> None:
    write(tmp_path, tmp_path / "work")
    (tmp_path / "report.html").write_text("new")
    refresh_manifest(tmp_path, "report.html")
    assert "report.html" in {file.name for file in verify_bundle(tmp_path).files}
    refresh_manifest(tmp_path / "work", "report.html")
    assert not (tmp_path / "work" / "manifest.json").exists()


def test_newer_damaged_and_absent_manifests_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="not a bundle"):
        verify_bundle(tmp_path)
    write(tmp_path, tmp_path / "work")
    path = tmp_path / "manifest.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({"schema_version": 99, "shape": "unknown"}))
    with pytest.raises(ArtifactError, match="version 99") as caught:
        verify_bundle(tmp_path)
    assert "upgrade" in caught.value.hint
    for damaged in (path.read_text()[:-5], json.dumps(content | {"threads": "two"})):
        path.write_text(damaged)
        with pytest.raises(ArtifactError, match="damaged"):
            verify_bundle(tmp_path)


def test_a_manifest_cannot_point_outside_its_folder(tmp_path: Path) -> None:
    write(tmp_path / "run", tmp_path / "work")
    path = tmp_path / "run" / "manifest.json"
    content = json.loads(path.read_text())
    content["files"][0]["name"] = "../work/winner.onnx"
    path.write_text(json.dumps(content))
    with pytest.raises(ArtifactError, match="not a file name"):
        verify_bundle(tmp_path / "run")


def test_a_missing_model_is_an_error_before_the_manifest(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="is missing"):
        write_bundle(
            tmp_path / "run",
            name="x",
            model=tmp_path / "no.onnx",
            fp32_model=tmp_path / "no.onnx",
            int8_model=None,
            validated={"model.onnx": validated("m")},
            scheme="float",
            limits={},
            preprocessing=Preprocessing(height=1, width=1, mean=(0.0,) * 3, std=(1.0,) * 3),
            labels=[],
            space="",
            candidate={},
            seeds={},
            data={},
        )
    assert not (tmp_path / "run" / "manifest.json").exists()
