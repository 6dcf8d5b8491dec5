"""Candidates on the workers of a Ray cluster that somebody else started: ``--workers ray://HOST:PORT``."""

from __future__ import annotations

import os
import re
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_workers import needs_ray

ADDRESS = re.compile(r"Local node IP: ([0-9.]+)")
STARTS_WITHIN_S = 90
# Ray's proxy starts a server for each client, and gives it half a minute on a machine however busy.
BUSY, CONNECTS_WITHIN = "Starting Ray client server failed", 4


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def address_of(head: subprocess.Popen[bytes], log: Path, port: int) -> str:
    """The cluster's address once it runs."""
    started = time.monotonic()
    while "Ray runtime started" not in (said := log.read_text()):
        if head.poll() is not None:
            pytest.fail(f"ray start ended: {said}")
        if time.monotonic() - started > STARTS_WITHIN_S:
            pytest.skip("this machine is too busy for Ray to start")
        time.sleep(0.2)
    found = ADDRESS.search(said)
    assert found is not None, said
    return f"ray://{found[1]}:{port}"


# In a process of its own: Ray keeps the first token that it reads for as long as a process lives.
WORK = """
import sys
from functools import partial
from pathlib import Path

from test_workers import deadly, square

from edgenas.pipeline.workers import connected_workers

address, marks = sys.argv[1], Path(sys.argv[2])
squares = {number: number**2 for number in range(4)}
with connected_workers(address) as workers:
    assert dict(workers.run(square, range(4))) == squares
    assert dict(workers.run(partial(deadly, marks, 1), range(4))) == squares
assert len(list(marks.iterdir())) == 1, "one worker was killed"
with connected_workers("1") as workers:  # of this machine, although a cluster runs here
    assert dict(workers.run(square, range(4))) == squares
"""


@pytest.fixture
def environment() -> dict[str, str]:
    """Where a cluster and its users have a token of their own."""
    path = os.pathsep.join([str(Path(__file__).parent), *os.environ.get("PYTHONPATH", "").split(os.pathsep)])
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16)}
    return {**os.environ, **token, "RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": path}


@pytest.fixture
def cluster(tmp_path: Path, environment: dict[str, str]) -> Iterator[str]:
    """The address of a head with two workers."""
    port, log = free_port(), tmp_path / "head.log"
    options = {
        "port": free_port(),
        "ray-client-server-port": port,
        "num-cpus": 2,
        "include-dashboard": "false",
    }
    command = [str(Path(sys.executable).with_name("ray")), "start", "--head", "--block"]
    command += [f"--{name}={value}" for name, value in options.items()]
    with (
        log.open("wb") as file,
        subprocess.Popen(command, stdout=file, stderr=file, env=environment) as head,
    ):
        try:
            yield address_of(head, log, port)
        finally:
            head.terminate()


@needs_ray
def test_a_cluster_of_others_does_the_work_and_survives_a_killed_worker(
    cluster: str, environment: dict[str, str], tmp_path: Path
) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()
    command = [sys.executable, "-c", WORK, cluster, str(marks)]
    for _ in range(CONNECTS_WITHIN):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if BUSY not in done.stderr:
            break
    assert done.returncode == 0, done.stderr
