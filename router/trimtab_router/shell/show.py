"""What the client of a query with several attempts gets: one object, or events as they are sure."""

import time
from typing import Any

import orjson

from trimtab_router.core.runs import Run, chunk, completion
from trimtab_router.core.sse import error_event
from trimtab_router.shell.account import Account
from trimtab_router.shell.request import Request
from trimtab_router.shell.server import ClientConnection

_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache"


class Show:
    """The client's side. Nothing is written before the first call of `text`, `note` or `whole`."""

    __slots__ = (
        "_account",
        "_chunked",
        "_client",
        "_identity",
        "_opened",
        "begun",
        "content",
        "reasoning",
        "streaming",
    )

    def __init__(self, client: ClientConnection, request: Request, account: Account) -> None:
        self._client = client
        self._chunked = not request.v1_0
        self._account = account
        self._opened = False
        self._identity: dict[str, Any] = {
            "id": "chatcmpl-" + request.headers[b"x-request-id"].decode("latin-1"),
            "created": int(time.time()),
            "model": account.plan.rung.pool.served_name,
        }
        self.streaming = account.plan.facts.stream
        self.begun = False
        self.content = -1
        """The attempt whose content the client has begun to get; -1 before that."""
        self.reasoning = False
        """Some reasoning has been shown."""

    def reason(self, text: str) -> None:
        """Reasoning, of whichever attempt."""
        if self.streaming and text:
            self.reasoning = True
            self._event(chunk(self._identity, {"reasoning": text}))

    def text(self, run: Run) -> None:
        """What is new in an attempt's content; from now on the answer is this one."""
        new = run.text[run.shown :]
        if self.streaming and new:
            self.content, run.shown = run.number, len(run.text)
            self._event(chunk(self._identity, {"content": new}))

    def note(self, words: str) -> None:
        """A comment, which OpenAI clients skip: the connection lives and people see why they wait."""
        if self.streaming:
            self._send(b": trimtab %b\n\n" % words.encode())

    def finish(self, run: Run, used: dict[str, Any], *, with_usage: bool) -> None:
        """The end of the answer."""
        identity = self._identity | {"model": run.attempt.rung.pool.served_name}
        if not self.streaming:
            self._account.begun()
            body = orjson.dumps(completion(identity, run, used))
            self._client.respond(200, body, self._account.headers())
            return
        if not self.reasoning:
            self.reason(run.whole_reasoning)
        self.text(run)
        self._event(chunk(identity, {}, run.finish_reason or "length"))
        if with_usage:
            self._event({**identity, "object": "chat.completion.chunk", "choices": [], "usage": used})
        else:
            self.note(orjson.dumps(used["trimtab"]).decode())
        self._send(b"data: [DONE]\n\n")
        self._write(b"0\r\n\r\n" if self._chunked else b"")
        self._client.done(keep=self._client.keeps() and self._chunked)

    def break_off(self, message: str, status: int) -> None:
        """An error in a stream that has begun."""
        self._write(error_event(message, status, chunked=self._chunked))
        self._client.done(keep=False)

    def _event(self, document: dict[str, Any]) -> None:
        if not self._opened:
            self._opened = True
            self._account.begun()
            self._send(b"data: %b\n\n" % orjson.dumps(chunk(self._identity, {"role": "assistant", "content": ""})))
        self._send(b"data: %b\n\n" % orjson.dumps(document))

    def _begin(self) -> None:
        self.begun = True
        framing = b"\r\ntransfer-encoding: chunked" if self._chunked else b"\r\nconnection: close"
        keep = b"" if self._client.keeps() or not self._chunked else b"\r\nconnection: close"
        self._write(_HEAD + framing + self._account.headers() + keep + b"\r\n\r\n")

    def _send(self, data: bytes) -> None:
        if not self.begun:
            self._begin()
        self._write(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)

    def _write(self, data: bytes) -> None:
        if data and self._client.transport is not None:
            self._client.transport.write(data)
