"""Devices: what is known about them and how they are reached."""

from edgenas.device_profiles.loading import list_profiles, load_profile
from edgenas.device_profiles.profile import DeviceProfile, Fact, read_profile
from edgenas.device_profiles.writing import add_profile

__all__ = ["DeviceProfile", "Fact", "add_profile", "list_profiles", "load_profile", "read_profile"]
