"""Where an answer ends, what its head says, what a stream's first event says."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab_router.core import sse
from trimtab_router.core.http1 import Chunks, FramingError, parse_head, unchunk


def head(*lines: str, status: str = "HTTP/1.1 200 OK"):
    return parse_head("".join(f"{line}\r\n" for line in (status, *lines)).encode())


@pytest.mark.parametrize(
    ("lines", "length", "chunked", "events", "keep", "until_close"),
    [
        (["Content-Length: 12"], 12, False, False, True, False),
        (["content-length:12 "], 12, False, False, True, False),
        (["Transfer-Encoding: chunked"], None, True, False, True, False),
        (["transfer-encoding: gzip, Chunked", "content-length: 5"], None, True, False, True, False),
        (["Content-Type: text/event-stream; charset=utf-8"], None, False, True, True, True),
        (["content-length: 1", "Connection: close"], 1, False, False, False, False),
        (["content-length: 1", "Connection: keep-alive"], 1, False, False, True, False),
        (["x-content-length: 12"], None, False, False, True, True),
    ],
)
def test_a_head_says_how_the_body_ends(lines, length, chunked, events, keep, until_close):  # noqa: PLR0917
    found = head(*lines)
    assert (found.length, found.chunked, found.events, found.keep) == (length, chunked, events, keep)
    assert found.until_close is until_close


@pytest.mark.parametrize("status", ["HTTP/1.1 204 No Content", "HTTP/1.1 304 Not Modified", "HTTP/1.1 100 Continue"])
def test_some_statuses_have_no_body(status):
    assert head(status=status).length == 0


def test_http_1_0_connections_are_not_kept():
    assert head("content-length: 1", status="HTTP/1.0 200 OK").keep is False


def test_headers_of_this_hop_and_the_routers_own_are_left_out():
    found = head(
        "Server: x", "Connection: close", "Keep-Alive: timeout=5", "X-Request-Id: 7", "x-trimtab-tier: y", "A: b"
    )
    assert found.lines == b"HTTP/1.1 200 OK\r\nServer: x\r\nA: b"


@pytest.mark.parametrize("raw", [b"SSH-2.0-x\r\n", b"HTTP/2 200\r\n", b"HTTP/1.1 abc OK\r\n"])
def test_what_is_no_http_is_refused(raw):
    with pytest.raises(FramingError):
        parse_head(raw)


def chunked(payloads, trailer=b"", extension=b""):
    chunks = b"".join(b"%X%b\r\n%b\r\n" % (len(p), extension, p) for p in payloads)
    return chunks + b"0\r\n" + trailer + b"\r\n"


payload_lists = st.lists(st.binary(min_size=1, max_size=40), max_size=6)
trailers = st.sampled_from([b"", b"a: b\r\n", b"a: b\r\nc: d\r\n"])
extensions = st.sampled_from([b"", b";x=y"])


@given(payload_lists, trailers, extensions, st.data())
def test_chunks_are_followed_however_they_are_cut(payloads, trailer, extension, data):
    raw = chunked(payloads, trailer, extension)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=8)))
    chunks, forwarded, held = Chunks(), b"", b""
    ends = [len(chunked(payloads[:i], extension=extension)) - 5 for i in range(len(payloads) + 1)]
    for a, b in zip([0, *cuts], [*cuts, len(raw)], strict=True):
        assert not chunks.done or a == len(raw)
        if chunks.done:
            break
        chunks.feed(raw[a:b])
        held += raw[a:b]
        if chunks.boundary:
            whole = len(held) - (b - a) + chunks.boundary
            forwarded, held = forwarded + held[:whole], held[whole:]
        assert len(forwarded) in [*ends, len(raw)]
    assert chunks.done
    assert forwarded == raw


@given(payload_lists, trailers, extensions)
def test_unchunking_gives_the_payload(payloads, trailer, extension):
    assert unchunk(chunked(payloads, trailer, extension)) == b"".join(payloads)


def test_unchunking_takes_a_cut_chunk_as_far_as_it_goes():
    assert unchunk(b"5\r\nhello\r\n9\r\nwor") == b"hellowor"


@pytest.mark.parametrize(
    "raw", [b"xyz\r\n", b"-5\r\n", b"\r\n", b"1" * 5000], ids=["word", "negative", "empty", "endless"]
)
def test_what_is_no_chunk_is_refused(raw):
    with pytest.raises(FramingError):
        Chunks().feed(raw)


REFUSAL = {"error": {"message": "busy", "type": "x", "code": 503}}


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        (f"data: {json.dumps(REFUSAL)}\n\n", "busy"),
        (f"data:{json.dumps(REFUSAL)}\r\n\r\n", "busy"),
        ('data: {"error": {"code": "503"}}\n\n', "overloaded"),
        ('data: {"error": {"message": "bad", "code": 400}}\n\n', None),
        ('data: {"error": "text"}\n\n', None),
        ('data: {"error": cut}\n\n', None),
        ('data: {"id": "1", "choices": []}\n\n', None),
        (": keep-alive\n\n", None),
    ],
)
def test_only_an_overload_in_the_first_event_is_a_refusal(payload, why):
    event = sse.first_event(payload.encode())
    assert event is not None
    assert sse.refusal(event) == why


@pytest.mark.parametrize(
    ("payload", "found"),
    [(b"data: {", None), (b"data: x\n", None), (b"data: x\n\ndata: y", b"data: x"), (b"x" * 70_000, b"x" * 70_000)],
)
def test_the_first_event_is_awaited_but_not_for_ever(payload, found):
    assert sse.first_event(payload) == found


@pytest.mark.parametrize(
    ("tail", "tokens"),
    [
        (b'{"usage": {"prompt_tokens": 9, "completion_tokens": 7}}', 7),
        (b'"completion_tokens":1}} "completion_tokens" : 22}', 22),
        (b'{"content": "say \\"completion_tokens\\": 5"}', None),
        (b"", None),
        (b'"completion_tokens": 3' + b" " * 5000, None),
    ],
)
def test_usage_is_read_from_the_end(tail, tokens):
    assert sse.used_tokens(tail) == tokens


@pytest.mark.parametrize("is_chunked", [True, False])
def test_an_error_event_ends_a_broken_stream(is_chunked):
    raw = sse.error_event("it broke", 502, chunked=is_chunked)
    payload = unchunk(raw) if is_chunked else raw
    assert raw.endswith(b"0\r\n\r\n") is is_chunked
    assert payload.startswith(b"\n\ndata: ")
    assert json.loads(payload.strip().removeprefix(b"data: ")) == {
        "error": {"message": "it broke", "type": "server_error", "param": None, "code": 502}
    }
