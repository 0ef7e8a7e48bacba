"""Token ids of a few words, asked of the engine itself (vLLM's `/tokenize`), so that the router needs no tokenizer.

Every replica is asked once for a text: while a pool moves to another model, its replicas may have two tokenizers.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Final, Protocol

import orjson

from trimtab_router.core import http1
from trimtab_router.core.http1 import FramingError, Head
from trimtab_router.core.read import encode
from trimtab_router.shell.answer import Answer
from trimtab_router.shell.options import Options
from trimtab_router.shell.request import Request
from trimtab_router.shell.upstream import Connection, Endpoint

PATH: Final = b"/tokenize"
ASK_SECONDS: Final = 5.0
"""Longer than any engine takes for a word; without its tokens the answer is taken as it is."""
MAX_TEXTS: Final = 64
"""Remembered of one replica; they are words of policies, so there are few."""
_MAX_ANSWER_BYTES: Final = 64 * 1024
_log = logging.getLogger(__name__)


class Host(Protocol):
    """The worker, as far as asking needs it."""

    options: Options

    def now(self) -> float:
        """Monotonic seconds."""


async def token_ids(
    host: Host, request: Request, endpoint: Endpoint, model: str, text: str, *, seconds: float = ASK_SECONDS
) -> tuple[int, ...]:
    """The tokens of a text by that replica's tokenizer; none where it does not say."""
    known = endpoint.texts.get(text)
    if known is not None:
        return known
    try:
        async with asyncio.timeout(seconds):
            status, body = await _asked(host, request, endpoint, model, text)
    except (OSError, TimeoutError, FramingError) as error:
        _log.debug("%s: no tokens of %r: %s", endpoint.address, text, error)
        return ()
    found = tokens_of(body) if status == 200 else ()
    if found or status in (404, 405, 501):  # it will not say later either
        if len(endpoint.texts) >= MAX_TEXTS:
            endpoint.texts.clear()
        endpoint.texts[text] = found
    return found


def tokens_of(body: bytes) -> tuple[int, ...]:
    """The `tokens` of an answer; none where it has no such list."""
    try:
        said = orjson.loads(body)
    except orjson.JSONDecodeError:
        return ()
    tokens = said.get("tokens") if isinstance(said, dict) else None
    return tuple(tokens) if isinstance(tokens, list) and all(isinstance(t, int) for t in tokens) else ()


async def _asked(host: Host, request: Request, endpoint: Endpoint, model: str, text: str) -> tuple[int, bytes]:
    """Status and body; raises OSError or FramingError."""
    body = encode({"model": model, "prompt": text, "add_special_tokens": False})
    connection = endpoint.take_idle()
    if connection is not None:
        try:
            return await _Question(connection).ask(body, request, host.now)
        except OSError:
            pass  # closed while idle; asking twice does no harm
    connection = await endpoint.connect(host.options.connect_seconds)
    return await _Question(connection).ask(body, request, host.now)


class _Question:
    """One request over one connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._done: asyncio.Future[Head] = asyncio.get_running_loop().create_future()
        self._status = 0
        self._raw = b""

    async def ask(self, body: bytes, request: Request, now: Callable[[], float]) -> tuple[int, bytes]:
        answer, whole = Answer(self, self._bytes), False
        try:
            self._connection.post(answer, PATH, body, request.onward())
            head = await self._done
            whole = head.keep and not head.until_close
            return self._status, http1.unchunk(self._raw) if head.chunked else self._raw
        finally:
            answer.close()
            self._connection.receiver = None
            if whole:
                self._connection.release(now())
            else:
                self._connection.abort()

    def _bytes(self, data: bytes) -> None:
        self._raw += data
        if len(self._raw) > _MAX_ANSWER_BYTES:
            self.failed("the answer is too long")

    # the answer's owner

    def refused(self, why: str) -> None:
        """The engine has no room."""
        self.failed(why)

    def begins(self, head: Head) -> bytes:
        """Nothing of it goes to the client."""
        self._status = head.status
        return b""

    def ended(self, head: Head) -> None:
        """The answer is complete."""
        if not self._done.done():
            self._done.set_result(head)

    def failed(self, why: str) -> None:
        """The engine died or sent what is no HTTP."""
        if not self._done.done():
            self._done.set_exception(ConnectionError(why))
