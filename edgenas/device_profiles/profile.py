"""A device profile: one validated TOML file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from edgenas.errors import UsageError
from edgenas.records import Record

ID_PATTERN = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")

# What ends up on an ssh command line must not be an option.
_Destination = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.@:%\[\]-]*$")]


class Fact(Record, forbid_unknown_fields=True):
    """One thing known about the device, and where it is written."""

    name: str
    value: str
    source: str


class DeviceProfile(Record, forbid_unknown_fields=True):
    """How a device is reached and what is measured on it.

    Attributes:
        id: its name on the command line and of its table.
        connection: ``local`` runs the agent on this machine, ``ssh`` through the OpenSSH client.
        host: the ssh destination, the id where it is omitted; everything in ~/.ssh/config applies.
        ssh_config: another file than ~/.ssh/config.
        python: the interpreter on the device; None: this one, or what ``device setup`` installed.
        threads: threads of a measurement; None: all the cores that the device has.
        float_type: what float models are computed in; other types than f32 are OpenVINO's to offer.
        int8_scheme: types of activations and weights that stand for int8 when kernels are profiled.
        temperature_limit_c: nothing is measured above it; None: no limit.
        virtual: its clock counts instructions; its milliseconds are not those of a real board.
        cpu: which processor a virtual board emulates.
    """

    id: str
    description: str
    connection: Literal["local", "ssh"]
    runtime: Literal["onnxruntime", "openvino"] = "onnxruntime"
    threads: Annotated[int, msgspec.Meta(ge=1, le=1024)] | None = None
    host: _Destination | None = None
    ssh_config: str | None = None
    python: str | None = None
    float_type: Literal["f32", "bf16", "f16"] = "f32"
    int8_scheme: Literal["u8s8", "s8s8", "u8u8"] = "u8s8"
    temperature_limit_c: Annotated[float, msgspec.Meta(gt=0, le=150)] | None = None
    virtual: bool = False
    cpu: Literal["cortex-a72", "cortex-a76"] | None = None
    facts: tuple[Fact, ...] = ()


def read_profile(path: Path) -> DeviceProfile:
    """The profile in a TOML file; its id is the file's name.

    Raises:
        UsageError: the file is not TOML, or a key is unknown, missing or has a wrong value.
    """
    try:
        values: dict[str, Any] = msgspec.toml.decode(path.read_bytes())
        profile = msgspec.convert({"id": path.stem, **values}, DeviceProfile)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UsageError(
            f"{path} is not a device profile: {error}",
            hint=f"keys of a profile: {', '.join(DeviceProfile.__struct_fields__)}",
        ) from error
    if profile.id != path.stem or not ID_PATTERN.fullmatch(profile.id):
        raise UsageError(
            f"{path} describes the device '{profile.id}': an id is the file's name without .toml, "
            "in lower-case letters, digits, dots and dashes"
        )
    if profile.connection == "local" and profile.host is not None:
        raise UsageError(f"{path}: a local device has no host", hint='write connection = "ssh"')
    if profile.virtual != (profile.cpu is not None):
        raise UsageError(f"{path}: a virtual board, and nothing else, names its 'cpu'")
    return profile
