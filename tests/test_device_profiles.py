"""Profiles: the built-in ones, those of users, and files that are wrong."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgenas.device_profiles import list_profiles, load_profile
from edgenas.device_profiles.loading import BUILT_IN
from edgenas.errors import UnknownNameError, UsageError
from edgenas.workspace import Workspace

GOOD = 'description = "A board"\nconnection = "ssh"\nhost = "pi@kitchen.local"\n'


def write(folder: Path, name: str, text: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.toml").write_text(text)


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.setenv("EDGENAS_CONFIG", str(tmp_path / "configuration"))
    return Workspace(tmp_path / "workspace")


@pytest.mark.parametrize("path", sorted(BUILT_IN.glob("*.toml")), ids=lambda path: path.stem)
def test_built_in_profiles_are_valid(workspace: Workspace, path: Path) -> None:
    profile = load_profile(path.stem, workspace)
    assert profile.description
    assert all(fact.source for fact in profile.facts)
    assert profile.facts or profile.connection == "local"


def test_list_has_the_promised_devices(workspace: Workspace) -> None:
    assert {"local", "local-openvino", "rpi4", "rpi5"} <= {profile.id for profile in list_profiles(workspace)}


def test_later_folders_win(workspace: Workspace) -> None:
    user = Path(os.environ["EDGENAS_CONFIG"]) / "device_profiles"
    write(user, "kitchen", GOOD)
    assert load_profile("kitchen", workspace).host == "pi@kitchen.local"
    write(workspace.device_profiles, "kitchen", GOOD.replace("kitchen.local", "other"))
    assert load_profile("kitchen", workspace).host == "pi@other"
    write(user, "local", GOOD)
    assert load_profile("local", workspace).connection == "ssh"


def test_unknown_device_says_what_exists(workspace: Workspace) -> None:
    with pytest.raises(UnknownNameError, match=r"known: .*rpi4") as caught:
        load_profile("toaster", workspace)
    assert "edgenas device add toaster" in caught.value.hint
    with pytest.raises(UnknownNameError) as caught:
        load_profile("lokal", workspace)
    assert caught.value.hint == "did you mean 'local'?"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (GOOD + "thread = 4\n", "thread"),
        (GOOD + "threads = 0\n", "threads"),
        (GOOD + 'threads = "four"\n', "threads"),
        (GOOD.replace("ssh", "telegraph"), "connection"),
        (GOOD + 'runtime = "abacus"\n', "runtime"),
        (GOOD + 'int8_scheme = "s8u8"\n', "int8_scheme"),
        (GOOD + "temperature_limit_c = -5.0\n", "temperature_limit_c"),
        (GOOD + '[[facts]]\nname = "x"\nvalue = "y"\n', "source"),
        (GOOD.replace("pi@kitchen.local", "-oProxyCommand=touch /tmp/x"), "host"),
        (GOOD.replace("pi@kitchen.local", "a b"), "host"),
        (GOOD.replace('"ssh"', '"local"'), "host"),
        ('connection = "local"\n', "description"),
        (GOOD + 'id = "other"\n', "other"),
        ("this is = not toml =", "not a device profile"),
        ("\udcff", "not a device profile"),
    ],
    ids=range(15),
)
def test_wrong_profile_names_file_and_key(workspace: Workspace, text: str, complaint: str) -> None:
    workspace.device_profiles.mkdir(parents=True)
    path = workspace.device_profiles / "board.toml"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(UsageError) as caught:
        load_profile("board", workspace)
    assert str(path) in caught.value.message
    assert complaint in caught.value.message
    assert load_profile("local", workspace).id == "local"
