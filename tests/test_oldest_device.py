"""The agent on the oldest Python and the oldest onnxruntime that it supports, for real."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from board_fixture import kept_folder
from small_models import QUICK, executable, write_images, write_model

from edgenas.device_profiles import DeviceProfile
from edgenas.measuring import connect

_PACKAGES = (
    "onnxruntime==1.16.0",
    "numpy==1.26.4",
    "protobuf==4.25.8",
    "flatbuffers==25.2.10",
    "packaging==24.2",
)


def _old_python() -> Path:
    """Debian 11's Python 3.9 with the oldest runtime beside it; made once and kept between runs."""
    if sys.platform != "linux" or os.uname().machine != "x86_64":
        pytest.skip("an old Python is made here for Linux on x86-64 only")
    folder = kept_folder() / "python3.9-onnxruntime1.16.0"
    if not folder.is_dir():
        if shutil.which("mmdebstrap") is None or os.geteuid() != 0:
            pytest.skip("an old Python is made with mmdebstrap, by root")
        making = folder.with_name(f"{folder.name}.{os.getpid()}")
        system = [
            "mmdebstrap", "--quiet", "--mode=root", "--variant=extract", "--arch=amd64",
            "--include=python3-minimal,libpython3-stdlib", "bullseye", str(making),
        ]  # fmt: skip
        packages = [
            sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps",
            "--root-user-action=ignore", "--only-binary=:all:", "--python-version=3.9", "--implementation=cp",
            "--platform=manylinux2014_x86_64", "--target", str(making / "packages"), *_PACKAGES,
        ]  # fmt: skip
        for command in (system, packages):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                shutil.rmtree(making, ignore_errors=True)
                pytest.skip(f"an old Python cannot be had here: {done.stderr[-300:]}")
        making.rename(folder)
    return folder


@pytest.mark.slow
def test_agent_works_on_python_3_9_and_onnxruntime_1_16(tmp_path: Path) -> None:
    root = _old_python()
    python = executable(
        tmp_path / "python",
        f"#!/bin/sh\nexport PYTHONHOME={root}/usr PYTHONPATH={root}/packages\n"
        f'exec {root}/usr/bin/python3.9 "$@"\n',
    )
    profile = DeviceProfile(id="old", description="an old system", connection="local", python=python)
    with connect(profile) as device:
        assert device.environment.python_version.startswith("3.9.")
        assert device.environment.runtime_version == "1.16.0"
        model = device.ship(write_model(tmp_path / "m.onnx"))
        (measured,) = device.compare([model], **QUICK)
        assert measured.statistics is not None
        assert "Conv" in {kernel.kind for kernel in device.trace(model, threads=1, runs=3).kernels}
        assert device.characterise(model, threads=1, runs=100).peak_memory_bytes > 0
        images = write_images(tmp_path / "x.npy", 6)
        outputs = list(device.evaluate(model, {"x": device.ship(tmp_path / "x.npy")}, threads=1))
        assert len(outputs) == len(images)
        assert np.isfinite(outputs[0]["y"]).all()
