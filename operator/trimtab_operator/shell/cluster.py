"""The API server: a small port with dictionaries as bodies, and its implementation by `kubernetes.aio`.

Writes are server-side applies under a named field manager. What passes by itself (429 with its Retry-After, 5xx,
timeouts, cut connections, optimistic conflicts inside the API server) is tried again a few times within a bound; the
rest is the caller's to judge. A writer that may have lost its lease is refused before the request leaves.
"""

import asyncio
import json
import os
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any, Protocol

import aiohttp
from kubernetes.aio import config as kubernetes_config
from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.config import ConfigException

from trimtab_operator.core.kinds import BY_NAME, EVENT, LEASE, Kind

Manifest = dict[str, Any]

_APPLY = "application/apply-patch+yaml"
_ATTEMPTS = 4
_FIRST_WAIT_SECONDS = 0.2
_LONGEST_WAIT_SECONDS = 5.0
#: Requests at a time. More would only wait inside the API server, where waiting counts as its slowness.
_AT_A_TIME = 24
_TRANSIENT = (408, 409, 429, 500, 502, 503, 504)
#: The API server answers 500 to an apply that names a field which the schema does not have.
_NOT_IN_SCHEMA = ("not declared in schema", "failed to create typed patch object", "unable to resolve")


class ClusterError(Exception):
    """The API server did not do what was asked. `status` is 0 when there was no answer."""

    def __init__(self, what: str, status: int, message: str, retry_after_seconds: float | None = None) -> None:
        super().__init__(f"{what}: {status or 'no answer'}: {message}")
        self.status = status
        self.message = message
        self.retry_after_seconds = retry_after_seconds

    @property
    def passes(self) -> bool:
        """Whether the same request may succeed later without any change."""
        refused = self.is_conflict or any(sign in self.message for sign in _NOT_IN_SCHEMA)
        return (self.status == 0 or self.status in _TRANSIENT) and not refused

    @property
    def is_conflict(self) -> bool:
        """Another field manager owns fields of the apply; the message names it and them."""
        return self.status == 409 and self.message.startswith("Apply failed with")

    @property
    def is_precondition(self) -> bool:
        """The object is not the one that was meant: its uid or resourceVersion differs."""
        if self.status == 422:  # an apply to an object with another uid
            return "metadata.uid: Invalid value" in self.message
        return self.status == 409 and ("uid" in self.message.lower() or "has been modified" in self.message)


class FencedError(ClusterError):
    """This process may no longer be the leader and must not write."""

    def __init__(self, what: str) -> None:
        super().__init__(what, 0, "this process does not hold the lease")

    @property
    def passes(self) -> bool:
        """Another process leads now."""
        return False


class NotConfiguredError(Exception):
    """There is no API server to talk to; the message says what to set."""


class Cluster(Protocol):
    """What the operator asks of an API server."""

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Manifest | None:
        """The object, or None, also where its kind is not served. `namespace` None: a kind in no namespace."""
        ...

    async def serves(self, kind: Kind) -> bool:
        """Whether the API server has objects of that kind."""
        ...

    async def list_all(self, kind: Kind, namespace: str | None, selector: str = "", fields: str = "") -> list[Manifest]:
        """Objects of one or of all namespaces that the label selector and the field selector take, as of now."""
        ...

    async def apply(self, manifest: Mapping[str, Any], *, manager: str, force: bool = True) -> Manifest:
        """Server-side apply; with `force` it takes conflicting fields. `metadata.uid` in it is a precondition."""
        ...

    async def apply_status(self, manifest: Mapping[str, Any], *, manager: str) -> Manifest:
        """Server-side apply of the status subresource."""
        ...

    async def delete(
        self, kind: Kind, namespace: str | None, name: str, *, uid: str, grace_seconds: int | None = None
    ) -> None:
        """Delete that very object; one that is gone already is fine. `grace_seconds` shortens a pod's own grace."""
        ...

    async def create_event(self, event: Mapping[str, Any]) -> None:
        """Create an Event; tried once."""
        ...


class KubernetesCluster:
    """`Cluster` by `kubernetes.aio`. `may_write` is asked before every write."""

    def __init__(self, client: Any, *, timeout_seconds: float = 20.0) -> None:
        self._client = client
        self._timeout_seconds = timeout_seconds
        self._places = asyncio.Semaphore(_AT_A_TIME)
        self.may_write: Callable[[], bool] = lambda: True

    async def close(self) -> None:
        """Close the connections."""
        await self._client.rest_client.close()

    async def served(self, path: str) -> bool:
        """Whether the API server knows a path such as /apis/GROUP/VERSION."""
        try:
            await self._request("GET", path)
        except ClusterError as error:
            if error.status == 404:
                return False
            raise
        return True

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Manifest | None:
        """See Cluster."""
        try:
            return _with_kind(await self._request("GET", kind.path(namespace, name)), kind)
        except ClusterError as error:
            if error.status == 404:
                return None
            raise

    async def serves(self, kind: Kind) -> bool:
        """See Cluster."""
        try:
            answer = await self._request("GET", f"/apis/{kind.api_version}")
        except ClusterError as error:
            if error.status == 404:
                return False
            raise
        return any(resource.get("name") == kind.plural for resource in answer.get("resources") or [])

    async def list_all(self, kind: Kind, namespace: str | None, selector: str = "", fields: str = "") -> list[Manifest]:
        """See Cluster."""
        asked = {"labelSelector": selector, "fieldSelector": fields}
        query = {key: value for key, value in asked.items() if value}
        answer = await self._request("GET", kind.path(namespace), query=query)
        return [_with_kind(item, kind) for item in answer.get("items") or []]

    async def apply(self, manifest: Mapping[str, Any], *, manager: str, force: bool = True) -> Manifest:
        """See Cluster."""
        return await self._apply(manifest, manager, None, force=force)

    async def apply_status(self, manifest: Mapping[str, Any], *, manager: str) -> Manifest:
        """See Cluster."""
        return await self._apply(manifest, manager, "status")

    async def delete(
        self, kind: Kind, namespace: str | None, name: str, *, uid: str, grace_seconds: int | None = None
    ) -> None:
        """See Cluster."""
        body: Manifest = {"propagationPolicy": "Background", "preconditions": {"uid": uid}}
        if grace_seconds is not None:
            body["gracePeriodSeconds"] = grace_seconds
        try:
            await self._write("DELETE", kind.path(namespace, name), body)
        except ClusterError as error:
            if error.status != 404 and not error.is_precondition:
                raise

    async def create_event(self, event: Mapping[str, Any]) -> None:
        """See Cluster."""
        await self._write("POST", EVENT.path(event["metadata"]["namespace"]), event, attempts=1)

    async def create(self, kind: Kind, manifest: Mapping[str, Any], *, timeout_seconds: float) -> Manifest:
        """Create an object that must not exist; never fenced, tried once: leases are made with it."""
        path = kind.path(manifest["metadata"]["namespace"])
        return await self._request("POST", path, body=manifest, attempts=1, timeout_seconds=timeout_seconds)

    async def replace(self, kind: Kind, manifest: Mapping[str, Any], *, timeout_seconds: float) -> Manifest:
        """Replace an object if its resourceVersion is still the given one; never fenced, tried once."""
        meta = manifest["metadata"]
        path = kind.path(meta["namespace"], meta["name"])
        return await self._request("PUT", path, body=manifest, attempts=1, timeout_seconds=timeout_seconds)

    async def _apply(
        self, manifest: Mapping[str, Any], manager: str, subresource: str | None, *, force: bool = True
    ) -> Manifest:
        kind, meta = BY_NAME[manifest["kind"]], manifest["metadata"]
        path = kind.path(meta.get("namespace"), meta["name"], subresource)
        query = {"fieldManager": manager, "force": str(force).lower()}
        return await self._write("PATCH", path, manifest, query=query, content_type=_APPLY)

    async def _write(self, method: str, path: str, body: Mapping[str, Any], **options: Any) -> Manifest:
        return await self._request(method, path, body=body, fenced=True, **options)

    async def _request(self, method: str, path: str, *, attempts: int = _ATTEMPTS, **options: Any) -> Manifest:
        """One answer, after as many attempts as it takes within the bounds."""
        for attempt in range(attempts):
            try:
                async with self._place(path):
                    return await self._send(method, path, **options)
            except ClusterError as error:
                asked = error.retry_after_seconds
                wait = _FIRST_WAIT_SECONDS * 2**attempt if asked is None else asked
                # A longer wait is the caller's: nobody else should stand behind it.
                last = attempt == attempts - 1 or wait > _LONGEST_WAIT_SECONDS
                if last or not error.passes or error.is_precondition:
                    raise
            await asyncio.sleep(wait)
        raise AssertionError("at least one attempt is made")

    def _place(self, path: str) -> AbstractAsyncContextManager[Any]:
        """One of the requests at a time; who holds the lease must not wait behind others' requests to renew it."""
        return nullcontext() if path.startswith(f"/apis/{LEASE.api_version}/") else self._places

    async def _send(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, str] | None = None,
        content_type: str = "application/json",
        timeout_seconds: float | None = None,
        fenced: bool = False,
    ) -> Manifest:
        what = f"{method} {path}"
        if fenced and not self.may_write():
            raise FencedError(what)
        headers = {"Accept": "application/json", "Content-Type": content_type, "User-Agent": "trimtab-operator"}
        try:
            async with asyncio.timeout(timeout_seconds or self._timeout_seconds):
                prepared = await self._client.param_serialize(
                    method,
                    path,
                    query_params=list((query or {}).items()),
                    header_params=headers,
                    body=body,
                    auth_settings=["BearerToken"],
                )
                response = await self._client.call_api(*prepared)
                data = await response.read()
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise ClusterError(what, 0, f"{type(error).__name__} {error}".strip()) from error
        return _answer(what, response.status, response.headers, data)


def _answer(what: str, status: int, headers: Mapping[str, str], data: bytes) -> Manifest:
    if status < 400:
        decoded: Manifest = json.loads(data)
        return decoded
    try:
        message = str(json.loads(data).get("message", ""))
    except (ValueError, AttributeError):
        message = data[:500].decode(errors="replace")
    raise ClusterError(what, status, message, _seconds(headers.get("Retry-After")))


def _seconds(text: str | None) -> float | None:
    """Retry-After in its form of whole seconds, the only one that Kubernetes sends."""
    return float(text) if text is not None and text.isdigit() else None


def _with_kind(item: Manifest, kind: Kind) -> Manifest:
    """Items of a list do not say what they are."""
    return {"apiVersion": kind.api_version, "kind": kind.kind, **item}


async def connect(kubeconfig: str | None = None) -> KubernetesCluster:
    """A client for the cluster this pod runs in, else for the kubeconfig; raises NotConfiguredError.

    A configuration without any credentials is an error: a client that silently sends none looks like missing rights.
    """
    configuration = Configuration()
    try:
        await _load(configuration, kubeconfig)
    except (ConfigException, OSError) as error:
        raise NotConfiguredError(
            f"no Kubernetes API server is configured ({error}); set KUBECONFIG, or run in a pod with a service account"
        ) from error
    configuration.retries = None
    if not (configuration.api_key or configuration.cert_file):
        raise NotConfiguredError(
            f"the configuration of {configuration.host} has neither a token nor a client certificate; "
            "add one to the kubeconfig's user"
        )
    return KubernetesCluster(ApiClient(configuration))


async def _load(configuration: Any, kubeconfig: str | None) -> None:
    loaders: Any = kubernetes_config
    if kubeconfig is None and "KUBERNETES_SERVICE_HOST" in os.environ:
        loaders.load_incluster_config(client_configuration=configuration)
        return
    await loaders.load_kube_config(config_file=kubeconfig, client_configuration=configuration, persist_config=False)
