"""What all tests share: caches and settings of their own, and where the optional data is."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
from loopback_sshd import SSHD, Server

# How fast a machine is must not decide a test: no deadlines, no complaint about slow generation.
hypothesis.settings.register_profile(
    "unhurried", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("unhurried")


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Tests neither read nor write the user's cache, settings and leases."""
    os.environ["EDGENAS_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    os.environ["EDGENAS_CONFIG"] = str(tmp_path_factory.mktemp("configuration"))


@pytest.fixture(scope="session", autouse=True)
def _short_contests() -> None:
    """Tests ask what is decided and written, not how sure a latency is."""
    from edgenas.quantization import contest

    contest.PASS_SECONDS = 0.0


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real models and images that stand beside a development checkout."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the real models and images of development (../shared/data) are not here")
    return folder


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A device behind ssh: a private sshd on loopback, for the tests of one file."""
    if SSHD is None or shutil.which("ssh") is None:
        pytest.skip("needs sshd and ssh: apt-get install openssh-server")
    if os.geteuid() != 0:
        pytest.skip("a private sshd needs root here, for /run/sshd")
    running = Server(tmp_path_factory.mktemp("sshd"))
    yield running
    running.stop()
