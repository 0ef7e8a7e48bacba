"""Ports on this machine."""

import errno
import socket

from trimtab_cli.errors import UsageError
from trimtab_cli.local.options import Address


def free_port(host: str = "127.0.0.1") -> int:
    """A port that nobody listens on now."""
    with socket.socket(_family(host)) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def claim(address: Address) -> Address:
    """The address with a real port; UsageError when it is taken or not ours to listen on."""
    if address.port == 0:
        return Address(address.host, free_port(address.host))
    with socket.socket(_family(address.host)) as probe:
        # As servers do: a port whose last connections linger is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address.host, address.port))
        except OSError as error:
            why = "something listens there already" if error.errno == errno.EADDRINUSE else error.strerror
            raise UsageError(f"--listen {address}: {why}; choose another, such as --listen 127.0.0.1:0") from None
    return address


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
