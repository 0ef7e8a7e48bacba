"""Plain HTTP to servers of this machine: no proxy, every answer closed, an error for every refusal."""

import urllib.error
import urllib.request


class RefusedError(OSError):
    """An HTTP status of 400 or more: the server runs, and does not (yet) do what is asked."""

    def __init__(self, url: str, status: int, text: str) -> None:
        super().__init__(f"{url}: {status}: {text}")
        self.status = status


def fetch(url: str, *, data: bytes | None = None, timeout_seconds: float = 10) -> bytes:
    """GET, or POST of JSON; RefusedError for a status of 400 or more, OSError where nobody answers."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    try:
        with opener.open(request, timeout=timeout_seconds) as answer:
            content: bytes = answer.read()
    except urllib.error.HTTPError as error:
        with error:
            text = error.read().decode(errors="replace").strip()
        raise RefusedError(url, error.code, text) from None
    return content


def answers(url: str) -> bool:
    """Whether a GET is answered with success; OSError otherwise."""
    fetch(url, timeout_seconds=2)
    return True
