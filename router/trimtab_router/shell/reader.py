"""Bytes of a client to requests: httptools' callbacks, and the limits on what a client may send."""

from collections import deque

import httptools

from trimtab_router.core.errors import ApiError
from trimtab_router.shell.options import Options
from trimtab_router.shell.request import Request


class RequestReader:
    """Reads one connection. After an error it reads nothing more: where the next request begins is unknown."""

    __slots__ = ("_head_bytes", "_options", "_parser", "_refused", "continue_due", "deaf", "queue", "request")

    def __init__(self, options: Options) -> None:
        self._options = options
        self._parser = httptools.HttpRequestParser(self)
        self._refused: ApiError | None = None
        self._head_bytes = 0
        self.queue: deque[Request | ApiError] = deque()
        """Complete requests; an error is the last entry."""
        self.request: Request | None = None
        """The one that is arriving."""
        self.continue_due = False
        """It waits for `100 Continue`."""
        self.deaf = False

    def feed(self, data: bytes) -> None:
        """Bytes as they arrive."""
        if self.deaf:
            return
        self._parse(data)
        if self._refused is not None:
            self.stop(self._refused)

    def stop(self, error: ApiError) -> None:
        """Reads no further; the error is answered when its turn comes."""
        self.deaf = True
        self.request = None
        self.continue_due = False
        self.queue.append(error)

    def _parse(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._ignore_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            self._refuse(400, f"request: not valid HTTP/1.1 ({error})", "invalid_http")
        else:
            if self.request is not None and not self.request.method:
                self._head_bytes += len(data)
                if self._head_bytes > self._options.max_header_bytes:
                    self._refuse_head()

    def _ignore_upgrade(self, rest: bytes) -> None:
        """Reads the request again without its offer to upgrade, which a server may ignore (RFC 9110, 7.8).

        The JDK's HTTP client offers HTTP/2 with every request; the parser leaves the body of such a request unread.
        """
        offering = self.queue.pop()
        if isinstance(offering, ApiError) or offering.method == b"CONNECT":
            self._refuse(405, "method: CONNECT is not allowed here; use POST", "method_not_allowed")
            return
        self._parser = httptools.HttpRequestParser(self)
        self._parse(offering.head_without_upgrade() + rest)

    def on_message_begin(self) -> None:
        """The parser's callback."""
        self.request = Request()
        self._head_bytes = 0

    def on_url(self, url: bytes) -> None:
        """The parser's callback."""
        if self.request is not None:
            self.request.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """The parser's callback."""
        if self.request is not None:
            self.request.add_header(name, value)

    def on_headers_complete(self) -> None:
        """The parser's callback."""
        request, parser, options = self.request, self._parser, self._options
        if request is None:
            return
        request.method = parser.get_method()
        request.v1_0 = parser.get_http_version() != "1.1"
        request.keep_alive = parser.should_keep_alive() and not request.v1_0
        length = request.headers.get(b"content-length")
        if request.header_bytes + len(request.target) > options.max_header_bytes:
            self._refuse_head()
        elif length is not None and int(length) > options.max_body_bytes:
            self._refuse_body()
        elif request.headers.get(b"expect", b"").lower() == b"100-continue":
            self.continue_due = True

    def on_body(self, data: bytes) -> None:
        """The parser's callback."""
        request = self.request
        if request is None or self._refused is not None:
            return
        request.size += len(data)
        if request.size > self._options.max_body_bytes:
            self._refuse_body()
        else:
            request.parts.append(data)

    def on_message_complete(self) -> None:
        """The parser's callback."""
        self.continue_due = False
        if self.request is not None and self._refused is None:
            self.queue.append(self.request)
        self.request = None

    def _refuse(self, status: int, message: str, code: str) -> None:
        self._refused = self._refused or ApiError(status, message, code=code)

    def _refuse_head(self) -> None:
        most = self._options.max_header_bytes
        self._refuse(431, f"headers: longer than {most} bytes; send fewer or shorter headers", "headers_too_large")

    def _refuse_body(self) -> None:
        most = self._options.max_body_bytes
        self._refuse(413, f"body: longer than {most} bytes; send a shorter body", "body_too_large")
