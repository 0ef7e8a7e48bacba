"""What the command line sets."""

import dataclasses
from dataclasses import dataclass
from typing import Any

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Options of one router."""

    config: str
    """Path of the RouterConfig document."""
    keys: str = ""
    """Folder with a folder of API keys for every tenant that has them; empty for none."""
    host: str = "127.0.0.1"
    port: int = 8080
    admin_host: str = "127.0.0.1"
    admin_port: int = 9090
    workers: int = 1
    classifier: bool = True
    drain_seconds: float = 30.0
    """Open answers may take this long after SIGTERM."""
    connect_seconds: float = 3.0
    first_byte_seconds: float = 1800.0
    """An answer that is not streamed has its first byte at its end, and reasoning is slow."""
    idle_seconds: float = 300.0
    """Longest pause inside a streamed answer."""
    max_body_bytes: int = 32 * MIB
    max_header_bytes: int = 32 * 1024
    head_seconds: float = 10.0
    """A request's headers must be complete by then."""
    body_seconds: float = 120.0
    """A request's body must be complete by then."""
    keep_alive_seconds: float = 75.0
    stall_seconds: float = 120.0
    """A client that reads nothing for this long is gone."""

    decision_log: str = ""
    """Folder of the decision log, `-` for standard output, empty for none."""
    decision_log_bytes: int = 512 * MIB
    """Bound on the folder."""

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for the worker's command line."""
        return dataclasses.asdict(self)
