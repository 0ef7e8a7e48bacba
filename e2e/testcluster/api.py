"""A small client of a Kubernetes API server for setting tests up, on the standard library alone."""

import base64
import json
import ssl
import tempfile
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from testcluster.errors import UnavailableError

JSON = "application/json"
MERGE_PATCH = "application/merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"
FIELD_MANAGER = "trimtab-tests"


class ApiError(OSError):
    """The API server's refusal: its HTTP status and its message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status
        self.message = message


class Api:
    """Requests as the user of one kubeconfig."""

    def __init__(self, server: str, context: ssl.SSLContext, token: str | None = None) -> None:
        self.server = server
        self._token = token
        # No proxy of the environment: test servers are on this machine.
        handlers = (urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
        self._opener = urllib.request.build_opener(*handlers)

    @classmethod
    def from_kubeconfig(cls, path: Path) -> "Api":
        """A client as the kubeconfig's current context says."""
        cluster, user = current_context(path)
        context = _tls(cluster, user)
        return cls(cluster["server"].rstrip("/"), context, user.get("token"))

    def request(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        content_type: str = JSON,
        timeout_seconds: float = 120,
    ) -> Any:
        """The decoded answer, or its text where it is not JSON; ApiError for a refusal."""
        headers = {"Content-Type": content_type, "Accept": JSON + ", */*"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.server + path, data, headers, method=method)
        try:
            with self._opener.open(request, timeout=timeout_seconds) as answer:
                content = answer.read()
        except urllib.error.HTTPError as error:
            with error:
                raise ApiError(error.code, _message(error.read())) from None
        return json.loads(content) if content[:1] in (b"{", b"[") else content.decode()

    def get(self, path: str) -> Any:
        """GET."""
        return self.request("GET", path)

    def create(self, path: str, body: Mapping[str, Any]) -> Any:
        """POST to a collection."""
        return self.request("POST", path, body)

    def merge(self, path: str, body: Mapping[str, Any]) -> Any:
        """JSON merge patch of one object (RFC 7386)."""
        return self.request("PATCH", path, body, content_type=MERGE_PATCH)

    def apply(self, path: str, body: Mapping[str, Any]) -> Any:
        """Server-side apply of one object as the field manager of the tests."""
        query = f"?fieldManager={FIELD_MANAGER}&force=true"
        return self.request("PATCH", path + query, body, content_type=APPLY_PATCH)

    def delete(self, path: str) -> Any:
        """DELETE one object; one that is not there is an ApiError 404."""
        return self.request("DELETE", path)

    def exists(self, path: str) -> bool:
        """Whether a GET of the path finds something."""
        try:
            self.get(path)
        except ApiError as error:
            if error.status == 404:
                return False
            raise
        return True


def tls_of(path: Path) -> tuple[str, ssl.SSLContext]:
    """Where a kubeconfig leads, and how to be its user there by certificate."""
    cluster, user = current_context(path)
    return cluster["server"].rstrip("/"), _tls(cluster, user)


def _message(content: bytes) -> str:
    try:
        return str(json.loads(content)["message"])
    except (ValueError, KeyError, TypeError):
        return content.decode(errors="replace").strip()


def read_kubeconfig(path: Path) -> dict[str, Any]:
    """A kubeconfig's content. Those written here are JSON, which needs no YAML parser."""
    text = path.read_text()
    try:
        content: Any = json.loads(text)
    except ValueError:
        import yaml

        content = yaml.safe_load(text)
    if not isinstance(content, dict) or not content.get("current-context"):
        raise UnavailableError(f"{path}: not a kubeconfig with a current-context")
    return content


def current_context(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The cluster and the user of the current context."""
    config = read_kubeconfig(path)
    context = _named(config["contexts"], config["current-context"], "context")
    cluster = _named(config["clusters"], context["cluster"], "cluster")
    user = _named(config["users"], context["user"], "user")
    if "exec" in user or "auth-provider" in user:
        raise UnavailableError(f"{path}: log-in helpers are not run by tests; use a certificate or a token")
    return cluster, user


def _named(entries: list[dict[str, Any]], name: str, kind: str) -> dict[str, Any]:
    for entry in entries:
        if entry["name"] == name:
            content: dict[str, Any] = entry[kind]
            return content
    raise UnavailableError(f"the kubeconfig has no {kind} {name!r}")


def _tls(cluster: Mapping[str, Any], user: Mapping[str, Any]) -> ssl.SSLContext:
    authority = _content(cluster, "certificate-authority")
    context = ssl.create_default_context(cadata=authority.decode() if authority else None)
    if cluster.get("insecure-skip-tls-verify"):
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    certificate, key = _content(user, "client-certificate"), _content(user, "client-key")
    if certificate and key:
        # The standard library takes certificates from files alone.
        with tempfile.TemporaryDirectory(prefix="trimtab-") as folder:
            path = Path(folder, "client.pem")
            path.touch(mode=0o600)
            path.write_bytes(certificate + b"\n" + key)
            context.load_cert_chain(path)
    return context


def _content(entry: Mapping[str, Any], name: str) -> bytes | None:
    if data := entry.get(f"{name}-data"):
        return base64.b64decode(data)
    return Path(entry[name]).read_bytes() if entry.get(name) else None


def write_kubeconfig(path: Path, *, server: str, authority: bytes, user: Mapping[str, Any]) -> Path:
    """A kubeconfig of one context, as JSON (a subset of YAML), readable by its owner alone."""

    def named(kind: str, content: Mapping[str, Any]) -> list[dict[str, Any]]:
        return [{"name": "test", kind: content}]

    encoded = base64.b64encode(authority).decode()
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "clusters": named("cluster", {"server": server, "certificate-authority-data": encoded}),
        "users": named("user", user),
        "contexts": named("context", {"cluster": "test", "user": "test"}),
    }
    path.touch(mode=0o600)
    path.write_text(json.dumps(content, indent=1))
    return path


def certificate_user(certificate: bytes, key: bytes) -> dict[str, str]:
    """A kubeconfig's user entry for a client certificate."""
    encode = {"client-certificate-data": certificate, "client-key-data": key}
    return {name: base64.b64encode(value).decode() for name, value in encode.items()}
