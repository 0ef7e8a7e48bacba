"""The real router as a child, fed with the same document that the operator writes."""

import asyncio
import contextlib
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import httpx

from trimtab_cli.local.children import Child, Children
from trimtab_cli.local.options import Address
from trimtab_crds.inferencepool import InferencePool
from trimtab_crds.routingpolicy import RoutingPolicy
from trimtab_operator.core.routerconfig import compile_config

START_DEADLINE_SECONDS = 30.0
PROBE_SECONDS = 0.1
DRAIN_SECONDS = 35.0
#: It looks at its file every second.
CATCH_UP_SECONDS = 5.0


class RouterFailed(Exception):  # noqa: N818 - named after what happened
    """The router cannot start or died; the message says what it printed."""


class Router:
    """The router process and its configuration file."""

    def __init__(
        self,
        policy: RoutingPolicy,
        pools: Mapping[str, InferencePool],
        *,
        folder: Path,
        listen: Address,
        admin: Address,
        keys: Path | None = None,
    ) -> None:
        self._policy = policy
        self._pools = pools
        self._file = folder / "router.json"
        self._keys = keys
        self.listen = listen
        self.admin = admin
        self._child: Child | None = None
        self._digest = ""

    @property
    def url(self) -> str:
        """Where OpenAI clients connect."""
        return f"http://{self.listen}/v1"

    @property
    def metrics_url(self) -> str:
        """Where its metrics are."""
        return f"http://{self.admin}/metrics"

    def list_engines(self, addresses: Mapping[str, Sequence[str]]) -> None:
        """Write the document with these replicas; the router reads it again by itself."""
        config = compile_config(self._policy, self._pools, addresses)
        self._digest = config.digest()
        fresh = self._file.with_suffix(".new")
        fresh.write_text(config.document())
        os.replace(fresh, self._file)  # noqa: PTH105 - atomic, so that half a document is never read

    async def start(self, children: Children) -> None:
        """Start it and wait until it answers; raises RouterFailed."""
        command = [
            sys.executable, "-m", "trimtab_router", "--config", str(self._file),
            "--listen", str(self.listen), "--admin", str(self.admin), "--workers", "1",
            *(("--keys", str(self._keys)) if self._keys is not None else ()),
        ]  # fmt: skip
        self._child = await children.start("router", command)
        try:
            async with asyncio.timeout(START_DEADLINE_SECONDS), httpx.AsyncClient(timeout=2, trust_env=False) as client:
                while not await self._answers(client):
                    if self._child.status is not None:
                        raise self._failure(f"ended with {self._child.status}")
                    await asyncio.sleep(PROBE_SECONDS)
        except TimeoutError:
            raise self._failure(f"did not answer within {START_DEADLINE_SECONDS:g} s") from None

    async def caught_up(self) -> None:
        """Wait until it runs the document that was written last, or for CATCH_UP_SECONDS."""
        async with httpx.AsyncClient(timeout=1, trust_env=False) as client:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CATCH_UP_SECONDS):
                    await self._catch_up(client)

    async def failed(self) -> None:
        """Wait for it to die; raises RouterFailed then."""
        if self._child is not None:
            status = await self._child.ended()
            raise self._failure(f"ended with {status}")

    async def stop(self) -> None:
        """Let it end its open answers."""
        if self._child is not None:
            await self._child.stop(DRAIN_SECONDS)

    def _failure(self, what: str) -> RouterFailed:
        words = self._child.last_words() if self._child else ""
        return RouterFailed(f"the router {what}: {words}")

    async def _catch_up(self, client: httpx.AsyncClient) -> None:
        while True:
            if f'hash="{self._digest}"' in await self._metrics(client):
                return
            await asyncio.sleep(PROBE_SECONDS)

    async def _metrics(self, client: httpx.AsyncClient) -> str:
        try:
            return (await client.get(self.metrics_url)).text
        except httpx.HTTPError:
            return ""

    async def _answers(self, client: httpx.AsyncClient) -> bool:
        try:
            return (await client.get(f"http://{self.admin}/healthz")).status_code == 200
        except httpx.HTTPError:
            return False
