"""A real Prometheus as a child, where one is installed."""

import asyncio
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

import httpx

from trimtab_cli.errors import UsageError
from trimtab_cli.local.children import Child, Children
from trimtab_cli.local.options import Address

START_DEADLINE_SECONDS = 30.0
_CONFIG = """\
global: {{scrape_interval: 1s, scrape_timeout: 1s}}
scrape_configs:
  - job_name: trimtab-router
    static_configs: [{{targets: ["{router}"]}}]
  - job_name: vllm
    file_sd_configs: [{{files: ["{engines}"], refresh_interval: 5s}}]
"""


def find_prometheus(wish: str) -> Path | None:
    """The program to use; None for the embedded source. UsageError when one was asked for that cannot be used."""
    if wish == "embedded":
        return None
    if wish == "auto":
        found = os.environ.get("TRIMTAB_PROMETHEUS") or shutil.which("prometheus")
        return Path(found) if found and _client_installed() and os.access(found, os.X_OK) else None
    if not os.access(wish, os.X_OK):
        raise UsageError(f"--prometheus {wish}: no such program; give its path, or `embedded`")
    if not _client_installed():
        raise UsageError(f"--prometheus {wish}: its client is not installed: pip install 'trimtab[operator]'")
    return Path(wish)


def _client_installed() -> bool:
    return find_spec("prometheus_api_client") is not None


class Prometheus:
    """The process, its configuration and its data, all in the working folder."""

    def __init__(self, program: Path, *, folder: Path, address: Address, router: Address) -> None:
        self._program = program
        self._folder = folder
        self._router = router
        self._address = address
        self._engines = folder / "engines.json"

    @property
    def url(self) -> str:
        """Where it answers queries."""
        return f"http://{self._address}"

    def list_engines(self, addresses: Mapping[str, Sequence[str]]) -> None:
        """Scrape these engines too."""
        groups = [{"targets": list(found), "labels": {"pool": pool}} for pool, found in addresses.items() if found]
        fresh = self._engines.with_suffix(".new")
        fresh.write_text(json.dumps(groups))
        os.replace(fresh, self._engines)  # noqa: PTH105 - atomic, so that half a file is never read

    async def start(self, children: Children) -> None:
        """Start it and wait until it answers; UsageError when it does not."""
        self.list_engines({})
        config = self._folder / "prometheus.yml"
        config.write_text(_CONFIG.format(router=self._router, engines=self._engines))
        child = await children.start(
            "prometheus",
            [
                str(self._program), f"--config.file={config}", f"--storage.tsdb.path={self._folder / 'prometheus'}",
                f"--web.listen-address={self._address}", "--storage.tsdb.retention.time=2h", "--log.level=warn",
            ],
        )  # fmt: skip
        try:
            async with asyncio.timeout(START_DEADLINE_SECONDS):
                await self._ready(child)
        except TimeoutError:
            raise UsageError(f"{self._program}: not ready after {START_DEADLINE_SECONDS:g} s") from None

    async def _ready(self, child: Child) -> None:
        async with httpx.AsyncClient(timeout=2, trust_env=False) as client:
            while True:
                if child.status is not None:
                    raise UsageError(f"{self._program} ended with {child.status}: {child.last_words()}")
                try:
                    if (await client.get(f"{self.url}/-/ready")).status_code == 200:
                        return
                except httpx.HTTPError:
                    pass
                await asyncio.sleep(0.1)
