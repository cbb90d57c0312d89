"""What the stack's own processes listen on, read from /proc: as `ss -ltnp` shows it, without `ss`."""

import ipaddress
import os
from dataclasses import dataclass
from pathlib import Path

from scripts.stack.readiness import listeners
from tallyhouse.settings import Settings


@dataclass(frozen=True)
class Listening:
    """A listening TCP socket and whose it is."""

    address: ipaddress.IPv4Address | ipaddress.IPv6Address
    port: int
    command: str

    @property
    def is_local(self) -> bool:
        mapped = getattr(self.address, "ipv4_mapped", None)
        return (mapped or self.address).is_loopback


def listening_sockets(settings: Settings) -> list[Listening]:
    """Of every process below the stack's supervisor (a run's JVMs too) and below this test run."""
    supervisor = settings.local / "run" / "supervisord.pid"
    roots = {os.getpid()} | ({int(supervisor.read_text())} if supervisor.exists() else set())
    by_inode = listeners()
    found = []
    for pid in descendants(roots):
        try:
            links = [str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()]
            command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # it has ended meanwhile
            continue
        for link in links:
            inode = int(link[8:-1]) if link.startswith("socket:[") else -1
            if inode in by_inode:
                address, port = by_inode[inode]
                found.append(Listening(decoded(address), port, command[:120]))
    return found


def descendants(roots: set[int]) -> set[int]:
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
    found = set(roots)
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def decoded(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """An address as /proc/net/tcp and tcp6 write it: words of four bytes, the last byte first."""
    words = [bytes.fromhex(address[i : i + 8])[::-1] for i in range(0, len(address), 8)]
    return ipaddress.ip_address(b"".join(words))
