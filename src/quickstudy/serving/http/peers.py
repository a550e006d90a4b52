"""Which user of this machine is at the other end of a connection.

Linux tells it of connections within a machine: the kernel by a question (sock_diag(7)), or in /proc/net/tcp and tcp6,
which list all connections and take the longer the more there are. Elsewhere nobody says, and other bounds have to do.
"""

import contextlib
import errno
import os
import socket
import struct
from dataclasses import dataclass
from functools import cached_property
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

NOBODY = -1
"""Of a connection that is not known to the system: it has ended."""
TABLES = {socket.AF_INET: Path("/proc/net/tcp"), socket.AF_INET6: Path("/proc/net/tcp6")}

Address = tuple[str, int | None] | None

# sock_diag(7), linux/inet_diag.h
_SOCK_DIAG = 4
_BY_FAMILY, _REQUEST = 20, 1
_HEAD = struct.Struct("=LHHLL")
_ASKED = struct.Struct("=BBBxL")
_ENDS = struct.Struct("!HH16s16s")
_USER = 64  # place of the user in struct inet_diag_msg


@dataclass(frozen=True)
class Peer:
    """The caller of a connection, as both ends are known here."""

    client: Address
    server: Address

    @cached_property
    def is_own_user(self) -> bool:
        """Whether the caller is the user whose process this is, or nobody can say."""
        return user_of(self.client, self.server) in (None, os.geteuid())


def user_of(client: Address, server: Address) -> int | None:
    """Return the number of the user whose end of a connection within this machine `client` is.

    Returns:
        None where the system does not tell; `NOBODY` where it knows no such connection.
    """
    if client is None or server is None:
        return NOBODY
    try:
        return asked(client, server)
    except (OSError, AttributeError, struct.error):  # no Linux, or one that lets nobody ask
        return listed(client, server)


def asked(client: tuple[str, int | None], server: tuple[str, int | None]) -> int:
    """Return what the kernel says, as `user_of` does.

    Raises:
        OSError: it does not answer such questions.
    """
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _SOCK_DIAG) as kernel:
        kernel.settimeout(1.0)
        for family in _families(client):
            ends = _ENDS.pack(client[1] or 0, server[1] or 0, _packed(client, family), _packed(server, family))
            question = _ASKED.pack(family, socket.IPPROTO_TCP, 0, 0xFFFFFFFF) + ends + b"\0" * 4 + b"\xff" * 8
            kernel.send(_HEAD.pack(_HEAD.size + len(question), _BY_FAMILY, _REQUEST, 0, 0) + question)
            answer = kernel.recv(8192)
            if _HEAD.unpack_from(answer)[1] == _BY_FAMILY:
                return int(struct.unpack_from("=L", answer, _HEAD.size + _USER)[0])
            code = -struct.unpack_from("=l", answer, _HEAD.size)[0]
            if code != errno.ENOENT:
                raise OSError(code, os.strerror(code))
    return NOBODY


def listed(client: tuple[str, int | None], server: tuple[str, int | None]) -> int | None:
    """Return what the tables of all connections say, as `user_of` does."""
    told = False
    for family in _families(client):
        with contextlib.suppress(OSError):
            found = TABLES[family].read_bytes()
            told = True
            ends = f" {_listed(client, family)} {_listed(server, family)} ".encode()
            place = found.find(ends)
            if place >= 0:
                return int(found[place + len(ends) :].split(maxsplit=5)[4])
    return NOBODY if told else None


def _families(address: tuple[str, int | None]) -> list[socket.AddressFamily]:
    """Return those that a caller's end may be of: 127.0.0.1 may have been called as ::ffff:127.0.0.1."""
    host = ip_address(address[0])
    mapped = isinstance(host, IPv4Address) or host.ipv4_mapped is not None
    return [socket.AF_INET, socket.AF_INET6] if mapped else [socket.AF_INET6]


def _packed(address: tuple[str, int | None], family: socket.AddressFamily) -> bytes:
    """Return an address as a family has it."""
    host = ip_address(address[0])
    if family == socket.AF_INET6:
        return host.packed if isinstance(host, IPv6Address) else b"\0" * 10 + b"\xff" * 2 + host.packed
    return (host.ipv4_mapped or host).packed if isinstance(host, IPv6Address) else host.packed


def _listed(address: tuple[str, int | None], family: socket.AddressFamily) -> str:
    """Return an address as the tables have it: words of four bytes in the machine's order, and the port."""
    packed = _packed(address, family)
    words = (socket.ntohl(int.from_bytes(packed[i : i + 4])) for i in range(0, len(packed), 4))
    return "".join(f"{word:08X}" for word in words) + f":{address[1] or 0:04X}"
