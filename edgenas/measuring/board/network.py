"""Brings up the network of a virtual board, which has none of the usual tools.

Runs on the board: loads the network card's modules in the order that the build wrote down, then
gives the loopback device and the card their addresses.
"""

import ctypes
import fcntl
import os
import socket
import struct
import sys
import time
from pathlib import Path

# Source: linux, include/uapi/asm-generic/unistd.h, include/uapi/linux/sockios.h, include/uapi/linux/if.h.
_FINIT_MODULE = 273
_SIOCSIFFLAGS, _SIOCSIFADDR, _SIOCSIFNETMASK = 0x8914, 0x8916, 0x891C
_UP_AND_RUNNING = 0x41
# What qemu's user network gives to its first guest.
_ADDRESS, _NETMASK = "10.0.2.15", "255.255.255.0"
_CARD_S = 5.0


def load_modules() -> None:
    """Loads every module that the build put into the image."""
    libc = ctypes.CDLL(None, use_errno=True)
    for name in Path("/modules/order").read_text().split():
        module = os.open(f"/modules/{name}", os.O_RDONLY)
        if libc.syscall(_FINIT_MODULE, module, b"", 0):
            sys.stderr.write(f"module {name} did not load: {os.strerror(ctypes.get_errno())}\n")
        os.close(module)


def network_card() -> str:
    """The name of the network card, as soon as there is one."""
    deadline = time.monotonic() + _CARD_S
    while time.monotonic() < deadline:
        cards = [path.name for path in Path("/sys/class/net").iterdir() if path.name != "lo"]
        if cards:
            return cards[0]
        time.sleep(0.1)
    raise SystemExit("there is no network card")


def main() -> None:
    """Loads the card's driver and brings both devices up."""
    load_modules()
    card = network_card()
    control = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for request, address in ((_SIOCSIFADDR, _ADDRESS), (_SIOCSIFNETMASK, _NETMASK)):
        value = struct.pack("HH4s8x", socket.AF_INET, 0, socket.inet_aton(address))
        fcntl.ioctl(control, request, card.encode().ljust(16, b"\0") + value)
    for name in ("lo", card):
        flags = struct.pack("H", _UP_AND_RUNNING).ljust(16, b"\0")
        fcntl.ioctl(control, _SIOCSIFFLAGS, name.encode().ljust(16, b"\0") + flags)


main()
