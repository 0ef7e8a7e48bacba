"""API keys of tenants: the router as a process, the real OpenAI SDK, and files as the kubelet mounts a Secret."""

import contextlib
import http.client
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import openai
import pytest

from support.engines import SimulatedEngine, simulated_engine
from support.routers import RouterProcess, router_process, wait_until
from testcluster.processes import PATIENCE_SECONDS

ACME, NEW, WRONG = "acme-key-0123456789", "acme-key-9876543210", "nobodys-key-0123456"


@dataclass
class Secret:
    """A mounted Secret: names are links through `..data`, which every change swaps."""

    folder: Path
    versions: list[Path] = field(default_factory=list)

    def set(self, **keys: str) -> None:
        version = self.folder / f"..v{len(self.versions)}"
        version.mkdir(parents=True)
        self.versions.append(version)
        for name, key in keys.items():
            (version / name).write_text(key)
            if not (self.folder / name).is_symlink():
                (self.folder / name).symlink_to(f"..data/{name}")
        fresh = self.folder / "..data_tmp"
        fresh.symlink_to(version.name)
        fresh.replace(self.folder / "..data")
        for link in self.folder.iterdir():
            if not link.name.startswith("..") and link.name not in keys:
                link.unlink()


def document(engine: SimulatedEngine, *, open_too: bool = False) -> dict[str, object]:
    tenants: list[dict[str, object]] = [{"name": "acme", "keyed": True}, {"name": "beta", "keyed": True}]
    return {
        "policy": "default/keys",
        "models": ["auto"],
        "tiers": [{"name": "low", "pool": "low", "outputTokens": 32}],
        "pools": [
            {"name": "low", "servedName": engine.model, "addresses": [engine.base_url.removeprefix("http://")]},
        ],
        "classifier": {"defaultTier": "low"},
        "tenants": [*tenants, {"name": "default"}] if open_too else tenants,
    }


@pytest.fixture(scope="module")
def engine() -> Iterator[SimulatedEngine]:
    with simulated_engine(served_name="tiny") as found:
        yield found


@pytest.fixture
def acme(tmp_path: Path) -> Secret:
    found = Secret(tmp_path / "keys" / "acme")
    found.set(laptop=ACME)
    return found


@pytest.fixture
def router(engine: SimulatedEngine, acme: Secret) -> Iterator[RouterProcess]:
    flags = ("--keys", str(acme.folder.parent), "--classifier", "off")
    with router_process(document(engine), "--workers", "2", *flags) as running:
        yield running
        printed = running.log.read_text() + admin(running, "metrics") + admin(running, "readyz")
    assert not any(key in printed for key in (ACME, NEW, WRONG))


def admin(router: RouterProcess, path: str) -> str:
    return httpx.get(f"{router.admin}/{path}", trust_env=False, timeout=PATIENCE_SECONDS).text


def ask(router: RouterProcess, key: str, **how: object) -> str:
    with openai.OpenAI(base_url=f"{router.url}/v1", api_key=key, max_retries=0, timeout=PATIENCE_SECONDS) as client:
        messages = [{"role": "user", "content": "hello"}]
        answer = client.chat.completions.create(model="auto", messages=messages, **how)
        if how.get("stream"):
            return "".join(chunk.choices[0].delta.content or "" for chunk in answer if chunk.choices)
        return str(answer.choices[0].message.content)


def statuses(router: RouterProcess, key: str | None) -> set[int]:
    """What workers answer to a key; new connections go to any of them."""
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    found = set()
    for _ in range(16):
        connection = http.client.HTTPConnection(router.url.removeprefix("http://"), timeout=PATIENCE_SECONDS)
        with contextlib.closing(connection):
            connection.request("GET", "/v1/models", headers=headers)
            found.add(connection.getresponse().status)
    return found


def until(router: RouterProcess, key: str | None, status: int) -> None:
    wait_until(lambda: statuses(router, key) == {status}, router.log.read_text)


def test_a_right_key_is_served_and_a_wrong_one_is_not(router: RouterProcess):
    assert ask(router, ACME)
    assert ask(router, ACME, stream=True)
    for how in ({}, {"stream": True}):
        with pytest.raises(openai.AuthenticationError, match="authorization: the API key is not known here") as error:
            ask(router, WRONG, **how)
        assert (error.value.code, error.value.type) == ("invalid_api_key", "invalid_request_error")
    with openai.OpenAI(base_url=f"{router.url}/v1", api_key=WRONG, max_retries=0) as client:
        with pytest.raises(openai.AuthenticationError):
            client.models.list()
        assert [m.id for m in client.with_options(api_key=ACME).models.list()] == ["auto", "tiny"]
    with pytest.raises(openai.PermissionDeniedError, match="is not the tenant that the API key names"):
        ask(router, ACME, extra_headers={"x-trimtab-tenant": "beta"})
    bare = httpx.post(f"{router.url}/v1/chat/completions", json={}, trust_env=False, timeout=PATIENCE_SECONDS)
    assert (bare.status_code, bare.headers["www-authenticate"]) == (401, "Bearer")


def test_the_admin_port_needs_no_key_and_says_who_has_none(router: RouterProcess):
    ready = httpx.get(f"{router.admin}/readyz", trust_env=False, timeout=PATIENCE_SECONDS)
    assert ready.status_code == 200
    assert "tenant beta has no API key, so its requests are refused" in ready.text
    metrics = admin(router, "metrics")
    assert 'trimtab_router_tenant_keys{policy="default/keys",tenant="acme"} 1.0' in metrics
    assert 'trimtab_router_tenant_keys{policy="default/keys",tenant="beta"} 0.0' in metrics
    assert "tenant beta has no API key" in router.log.read_text()


def test_keys_are_exchanged_without_a_restart(router: RouterProcess, acme: Secret):
    acme.set(laptop=ACME, next=NEW)
    until(router, NEW, 200)
    assert ask(router, ACME)
    acme.set(next=NEW)
    until(router, ACME, 401)
    until(router, NEW, 200)
    with pytest.raises(openai.AuthenticationError):
        ask(router, ACME)
    assert ask(router, NEW, stream=True)
    acme.set()
    until(router, NEW, 401)


def test_who_sends_no_key_is_the_default_tenant_where_there_is_one(router: RouterProcess, engine: SimulatedEngine):
    assert statuses(router, None) == {401}
    router.write(document(engine, open_too=True))
    until(router, None, 200)
    body = {"model": "auto", "messages": [{"role": "user", "content": "hello"}]}
    bare = httpx.post(f"{router.url}/v1/chat/completions", json=body, trust_env=False, timeout=PATIENCE_SECONDS)
    assert (bare.status_code, bool(bare.json()["choices"])) == (200, True)
    assert statuses(router, WRONG) == {401}
    assert ask(router, ACME)
