"""Caches of prompts that one simulated engine reads and another fetches, as vLLM's NixlConnector has them.

The engine that reads keeps the cache and says where (`kv_transfer_params`); the one that answers asks there, by the
side channel, and computes nothing of the prompt but its last token. What is kept takes room until it is fetched or its
lease ends. Only the protocol between the two is our own: a line of JSON each way instead of RDMA.
"""

import asyncio
import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from trimtab_cli.engine_sim.settings import Transfer

LEASE_SECONDS = 30.0
"""How long a cache waits to be fetched (vLLM, `kv_lease_duration`)."""
ASK_SECONDS = 5.0
LINK_BYTES_PER_SECOND = 25e9
"""A network card of 200 Gbit/s."""
_MAX_LINE = 64 * 1024
#: What the answering engine must be told (vLLM, nixl/pull_scheduler.py).
_NEEDED = ("remote_block_ids", "remote_engine_id", "remote_request_id", "remote_host", "remote_port")


class TransferFailed(Exception):  # noqa: N818 - named after what happened
    """The cache could not be fetched."""


@dataclass(frozen=True, slots=True)
class Kept:
    """One prompt's cache; `digest` names the prompt."""

    digest: str
    tokens: int


class Transfers:
    """What this engine keeps for others, and how it fetches from them.

    `room` is called with the tokens that are kept from now on. All methods run in the event loop's thread.
    """

    def __init__(
        self,
        transfer: Transfer,
        *,
        block_tokens: int,
        room: Callable[[int], None],
        lease_seconds: float = LEASE_SECONDS,
    ) -> None:
        self._transfer = transfer
        self._block_tokens = block_tokens
        self._room = room
        self._lease_seconds = lease_seconds
        self._kept: dict[str, Kept] = {}
        self._leases: dict[str, asyncio.TimerHandle] = {}
        self._server: asyncio.Server | None = None
        self._blocks = itertools.count(1)

    async def listen(self) -> None:
        """Opens the side channel; raises OSError."""
        self._server = await asyncio.start_server(
            self._serve, self._transfer.host, self._transfer.port, limit=_MAX_LINE
        )

    def keep(self, request_id: str, digest: str, tokens: int, *, cached: int = 0) -> dict[str, Any]:
        """Keeps a prompt's cache, of which `cached` tokens were there before; what another engine must be told."""
        self._kept[request_id] = Kept(digest, tokens)
        self._leases[request_id] = asyncio.get_running_loop().call_later(self._lease_seconds, self._release, request_id)
        self._tell()
        blocks = [next(self._blocks) for _ in range(-(-tokens // self._block_tokens))]
        return {
            "do_remote_prefill": True,
            "do_remote_decode": False,
            "remote_block_ids": [blocks],
            "remote_engine_id": self._transfer.engine_id,
            "remote_request_id": request_id,
            "remote_host": self._transfer.host,
            "remote_port": self._transfer.port,
            "tp_size": self._transfer.tensor,
            "dcp_size": 1,
            "pp_size": 1,
            "remote_num_tokens": tokens,
            "remote_blocks_expiry_time": None,
            "transfer_mode": "pull",
            "remote_prefill_cached_tokens": cached,
        }

    async def fetch(self, params: dict[str, Any], digest: str) -> int:
        """Tokens of the prompt that another engine gave; raises TransferFailed."""
        if missing := [name for name in _NEEDED if not params.get(name)]:
            raise TransferFailed(f"kv_transfer_params has no {', '.join(missing)}")
        asked = {"request_id": str(params["remote_request_id"]), "digest": digest}
        try:
            async with asyncio.timeout(ASK_SECONDS):
                said = await _ask(str(params["remote_host"]), int(params["remote_port"]), asked)
        except (OSError, TimeoutError, ValueError) as error:
            raise TransferFailed(f"{params['remote_host']}:{params['remote_port']}: {error or 'timeout'}") from error
        if "tokens" not in said:
            raise TransferFailed(str(said.get("error")))
        return int(said["tokens"])

    def close(self) -> None:
        """Frees everything, and closes the side channel."""
        if self._server is not None:
            self._server.close()
        for lease in self._leases.values():
            lease.cancel()
        self._kept.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(ASK_SECONDS):
                asked = json.loads(await reader.readline())
                writer.write(json.dumps(self._given(asked)).encode() + b"\n")
                await writer.drain()
        except (OSError, TimeoutError, ValueError):
            pass  # who asks wrongly or leaves gets nothing
        finally:
            writer.close()

    def _given(self, asked: Any) -> dict[str, Any]:
        request_id = asked.get("request_id") if isinstance(asked, dict) else None
        kept = self._kept.get(str(request_id))
        if kept is None:
            return {"error": f"request {request_id} has no cache here: it was fetched, or its lease has ended"}
        if kept.digest != asked.get("digest"):
            return {"error": f"request {request_id} has the cache of another prompt"}
        self._release(str(request_id))
        return {"tokens": kept.tokens}

    def _release(self, request_id: str) -> None:
        if (lease := self._leases.pop(request_id, None)) is not None:
            lease.cancel()
        self._kept.pop(request_id, None)
        self._tell()

    def _tell(self) -> None:
        self._room(sum(kept.tokens for kept in self._kept.values()))


async def _ask(host: str, port: int, asked: dict[str, str]) -> dict[str, Any]:
    reader, writer = await asyncio.open_connection(host, port, limit=_MAX_LINE)
    try:
        writer.write(json.dumps(asked).encode() + b"\n")
        said = json.loads(await reader.readline())
    finally:
        writer.close()
    return said if isinstance(said, dict) else {}
