"""Runs a command on a network that is this machine alone, and records what would have left it.

    unshare --net python confined.py REPORT COMMAND…

The only interface is `lo`, but it has an address of a network and a way to everywhere, as a machine's
own interface has: a program that wants to bind it or to reach the internet tries to. Each packet
passes `lo` and is seen there, whichever process sent it. REPORT gets {code, foreign, lost, listening}.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

ADDRESS = "198.51.100.7"
"""Of this machine on its network (a range that is nobody's)."""
DNS = 53
_ALL_PACKETS, _PACKET_OPTIONS, _STATISTICS, _FORCE_BUFFER = 3, 263, 6, 33
_IPV4, _IPV6, _TCP_UDP = 0x0800, 0x86DD, (6, 17)
_LISTEN = "0A"


def _connect() -> None:
    for command in (
        "link set lo up",
        f"address add {ADDRESS}/32 dev lo",
        f"route add default dev lo src {ADDRESS}",
    ):
        subprocess.run(["ip", *command.split()], check=True)


def _destination(packet: bytes) -> tuple[str, int] | None:
    """Address and port (0: none) a packet goes to; None if it is no IP packet."""
    (kind,) = struct.unpack_from("!H", packet, 12)
    if kind == _IPV4:
        head, protocol, address = 14 + 4 * (packet[14] & 15), packet[23], packet[30:34]
    elif kind == _IPV6:
        head, protocol, address = 54, packet[20], packet[38:54]
    else:
        return None
    port = struct.unpack_from("!H", packet, head + 2)[0] if protocol in _TCP_UDP else 0
    return str(ipaddress.ip_address(address)), port


def _leaves(address: str, port: int) -> bool:
    """Whether it is for another machine, or asks a name server, which would ask another machine."""
    is_here = ipaddress.ip_address(address).is_loopback or address == ADDRESS
    return port == DNS or not is_here


def _counter(name: str) -> int:
    path = Path("/proc/net/snmp6")  # absent where there is no IPv6
    rows = (line.split() for line in path.read_text().splitlines()) if path.exists() else ()
    return next((int(value) for key, value in rows if key == name), 0)


class Watch:
    """Packets that would leave, and ports that wait for connections."""

    def __init__(self) -> None:
        self.foreign: Counter[str] = Counter()
        self.listening: dict[str, set[int]] = {}
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL_PACKETS))
        self._socket.bind(("lo", 0))
        self._socket.setsockopt(socket.SOL_SOCKET, _FORCE_BUFFER, 64 * 2**20)
        self._is_over = False

    def packets(self) -> None:
        """Look at every packet until `close`."""
        self._socket.settimeout(0.2)
        while not self._is_over:
            with contextlib.suppress(TimeoutError):
                to = _destination(self._socket.recv(128))
                if to is not None and _leaves(*to):
                    self.foreign[f"{to[0]}:{to[1]}"] += 1

    def ports(self) -> None:
        """Look at the table of sockets ten times a second until `close`."""
        while not self._is_over:
            for name in ("tcp", "tcp6"):
                for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
                    local, _, state = line.split()[1:4]
                    if state == _LISTEN:
                        address, port = local.split(":")
                        self.listening.setdefault(_address(address), set()).add(int(port, 16))
            time.sleep(0.1)

    def close(self) -> int:
        """Stop looking; returns the number of packets that came too fast to be looked at."""
        self._is_over = True
        counts = self._socket.getsockopt(_PACKET_OPTIONS, _STATISTICS, 8)
        return struct.unpack("II", counts)[1]


def _address(text: str) -> str:
    """An address as /proc/net/tcp writes it: words of 32 bits in this machine's byte order."""
    words = [bytes.fromhex(text[i : i + 8])[::-1] for i in range(0, len(text), 8)]
    found = ipaddress.ip_address(b"".join(words))
    mapped = getattr(found, "ipv4_mapped", None)
    return str(mapped or found)


def main() -> int:
    """Run the command under watch; returns 0 once the report is written."""
    report, command = Path(sys.argv[1]), sys.argv[2:]
    _connect()
    watch = Watch()
    threads = [threading.Thread(target=look) for look in (watch.packets, watch.ports)]
    for thread in threads:
        thread.start()
    code = subprocess.run(command).returncode
    lost = watch.close()
    for thread in threads:
        thread.join()
    listening = {address: sorted(ports) for address, ports in watch.listening.items()}
    # Linux gives IPv6 no way through `lo`: it only counts who tried.
    if refused := _counter("Ip6OutNoRoutes"):
        watch.foreign["an IPv6 address"] = refused
    found = {"code": code, "foreign": watch.foreign, "lost": lost, "listening": listening}
    report.write_text(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
