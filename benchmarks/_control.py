"""The control of the router's benchmark: the same job on starlette, uvicorn and an aiohttp client.

It parses the body, sets model and budget, forwards, and streams the answer back; it has no classifier and no metrics.
"""

import sys
from collections.abc import AsyncIterator

import aiohttp
import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

_SESSION: list[aiohttp.ClientSession] = []


async def _forward(request: Request) -> Response:
    body = orjson.loads(await request.body())
    body["model"], body["thinking_token_budget"] = "m", 2048
    if not _SESSION:
        _SESSION.append(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)))
    headers = {"content-type": "application/json", "authorization": request.headers.get("authorization", "")}
    answer = await _SESSION[0].post(f"{sys.argv[2]}{request.url.path}", data=orjson.dumps(body), headers=headers)
    if answer.content_length is not None:
        return Response(await answer.read(), answer.status, media_type=answer.content_type)
    return StreamingResponse(_pass(answer), answer.status, media_type=answer.content_type)


async def _pass(answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    async for piece in answer.content.iter_any():
        yield piece


if __name__ == "__main__":
    app = Starlette(routes=[Route("/v1/chat/completions", _forward, methods=["POST"])])
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), access_log=False, log_level="warning", loop="uvloop")
