"""Opens the right kind of connection for a profile."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import msgspec

from edgenas.device_profiles import DeviceProfile
from edgenas.measuring.agent import Agent
from edgenas.measuring.connection import Connection
from edgenas.measuring.local import LocalConnection
from edgenas.measuring.ssh import SshConnection
from edgenas.measuring.virtual_board import VirtualBoard


@contextlib.contextmanager
def connect(profile: DeviceProfile) -> Iterator[Agent]:
    """Starts the device's agent and ends it with the block.

    Several agents of one device may be open; each request has the device to itself, and others wait.

    Raises:
        DeviceUnreachableError: no connection, no Python or no runtime there.
        AgentProtocolError: what answers is not the agent.
    """
    connection = _connection(profile)
    try:
        agent = Agent(connection)
        try:
            yield agent
        finally:
            agent.close()
    finally:
        connection.close()


def _connection(profile: DeviceProfile) -> Connection:
    if profile.connection == "local":
        return LocalConnection(profile)
    if profile.virtual:
        profile = msgspec.structs.replace(profile, ssh_config=str(VirtualBoard(profile).running_config()))
    return SshConnection(profile)
