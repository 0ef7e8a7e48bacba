"""Ports on this machine."""

import errno
import socket
from collections import deque

from trimtab_cli.errors import UsageError
from trimtab_cli.local.options import Address

#: Ports given lately: whom one was given to may need a while until it listens there.
_given: deque[int] = deque(maxlen=64)


def free_port(host: str = "127.0.0.1") -> int:
    """A port that nobody listens on now, and that was not given to anybody lately."""
    while True:
        with socket.socket(_family(host)) as probe:
            probe.bind((host, 0))
            port = int(probe.getsockname()[1])
        if port not in _given:
            _given.append(port)
            return port


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
