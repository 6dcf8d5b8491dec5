"""The host's side of every measurement: connections to devices and the client of the agent."""

from edgenas.measuring.agent import Agent
from edgenas.measuring.connecting import connect
from edgenas.measuring.repeatability import noise_floor

__all__ = ["Agent", "connect", "noise_floor"]
