"""The API server's answers: what is tried again, for how long, and what is not."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest

from trimtab_operator.__main__ import StartError, await_crds
from trimtab_operator.core.kinds import DEPLOYMENT, POD, POOL, Kind
from trimtab_operator.shell import cluster as module
from trimtab_operator.shell.cluster import ClusterError, KubernetesCluster, NotConfiguredError, connect


class Answer:
    """What `kubernetes.aio` gives back."""

    def __init__(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        self.status = status
        self.headers = headers or {}
        self._data = body if isinstance(body, bytes) else json.dumps(body).encode()

    async def read(self) -> bytes:
        return self._data


class Client:
    """A client that gives these answers in turn."""

    def __init__(self, *answers: Answer | Exception) -> None:
        self._answers: Iterator[Answer | Exception] = iter(answers)
        self.requests: list[tuple[str, str]] = []

    async def param_serialize(self, method: str, path: str, **_: Any) -> tuple[str, str]:
        return method, path

    async def call_api(self, method: str, path: str) -> Answer:
        self.requests.append((method, path))
        answer = next(self._answers)
        if isinstance(answer, Exception):
            raise answer
        return answer


OK = Answer(200, {"metadata": {"name": "x"}})
BODY = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"namespace": "ns", "name": "x"}}


def failed(status: int, message: str = "no", **headers: str) -> Answer:
    return Answer(status, {"message": message}, {key.replace("_", "-"): value for key, value in headers.items()})


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Waits between attempts, not waited."""
    asked: list[float] = []

    async def no_sleep(seconds: float) -> None:
        asked.append(seconds)

    monkeypatch.setattr(module.asyncio, "sleep", no_sleep)
    return asked


def apply(client: Client) -> Any:
    return asyncio.run(KubernetesCluster(client).apply(BODY, manager="m"))


@pytest.mark.parametrize(
    "first",
    [failed(429), failed(500), failed(503), failed(409, "try again"), OSError("cut"), TimeoutError()],
    ids=["429", "500", "503", "409", "a cut connection", "a timeout"],
)
def test_what_passes_is_tried_again(first: Answer | Exception):
    client = Client(first, OK)
    assert apply(client)["metadata"]["name"] == "x"
    assert len(client.requests) == 2


def test_the_servers_own_wait_is_kept(waits: list[float]):
    apply(Client(failed(429, Retry_After="3"), failed(429, Retry_After="5"), failed(503), OK))
    assert waits == [3.0, 5.0, pytest.approx(0.8)]


def test_a_long_wait_is_left_to_the_caller(waits: list[float]):
    client = Client(failed(429, Retry_After="3600"), OK)
    with pytest.raises(ClusterError) as given_up:
        apply(client)
    assert (given_up.value.retry_after_seconds, len(client.requests), waits) == (3600, 1, [])


def test_attempts_have_an_end():
    client = Client(*[failed(503)] * 10)
    with pytest.raises(ClusterError) as given_up:
        apply(client)
    assert (given_up.value.status, len(client.requests)) == (503, 4)


@pytest.mark.parametrize(
    "answer",
    [
        failed(403),
        failed(422, "spec.x: Invalid value"),
        failed(409, "the object has been modified"),
        failed(409, "uid mismatch"),
        failed(500, "failed to create typed patch object: .spec.x: field not declared in schema"),
    ],
    ids=["403", "422", "another version", "another object", "an unknown field"],
)
def test_what_does_not_pass_is_not_tried_again(answer: Answer):
    client = Client(answer)
    with pytest.raises(ClusterError):
        apply(client)
    assert len(client.requests) == 1


def test_what_is_not_there_is_none():
    assert asyncio.run(KubernetesCluster(Client(failed(404))).get(POOL, "ns", "x")) is None
    assert asyncio.run(KubernetesCluster(Client(failed(404))).served("/apis/x")) is False
    asyncio.run(KubernetesCluster(Client(failed(404))).delete(POD, "ns", "x", uid="u"))


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        pytest.param(
            failed(404),
            "the API server does not serve trimtab.dev; install the CRDs: trimtab crds | kubectl apply -f -",
            id="no CRDs",
        ),
        pytest.param(
            failed(403, "forbidden"),
            "the API server does not answer: GET /apis/trimtab.dev/v1alpha1: 403: forbidden",
            id="no right",
        ),
    ],
)
def test_an_operator_without_its_resources_does_not_start(answer: Answer, sentence: str):
    with pytest.raises(StartError) as refused:
        asyncio.run(await_crds(KubernetesCluster(Client(answer)), patience_seconds=-1))
    assert str(refused.value) == sentence


def test_resources_that_come_late_are_waited_for(waits: list[float]):
    asyncio.run(await_crds(KubernetesCluster(Client(failed(404), OK)), patience_seconds=60))
    assert waits == [2]


def test_items_of_a_list_say_what_they_are():
    client = Client(Answer(200, {"items": [{"metadata": {"name": "a"}}]}), Answer(200, {"items": None}))
    found = asyncio.run(KubernetesCluster(client).list_all(DEPLOYMENT, "ns"))
    assert (found[0]["kind"], found[0]["apiVersion"]) == ("Deployment", "apps/v1")


def test_an_answer_that_is_not_json_is_quoted():
    with pytest.raises(ClusterError, match="418: short and stout"):
        apply(Client(Answer(418, b"short and stout")))


@pytest.mark.parametrize(
    ("kind", "namespace", "name", "sub", "path"),
    [
        (POD, None, None, None, "/api/v1/pods"),
        (POD, "ns", None, None, "/api/v1/namespaces/ns/pods"),
        (POOL, "ns", "x", "status", "/apis/trimtab.dev/v1alpha1/namespaces/ns/inferencepools/x/status"),
        (DEPLOYMENT, "ns", "x", None, "/apis/apps/v1/namespaces/ns/deployments/x"),
    ],
    ids=["everywhere", "core", "subresource", "group"],
)
def test_addresses(kind: Kind, namespace: str | None, name: str | None, sub: str | None, path: str):
    assert kind.path(namespace, name, sub) == path


def kubeconfig(user: dict[str, str]) -> str:
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "c",
            "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}],
            "users": [{"name": "u", "user": user}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        }
    )


def test_a_configuration_without_credentials_is_refused(tmp_path: Any):
    path = tmp_path / "config"
    path.write_text(kubeconfig({}))
    with pytest.raises(NotConfiguredError, match="has neither a token nor a client certificate; add one"):
        asyncio.run(connect(str(path)))


def test_a_token_is_enough(tmp_path: Any):
    path = tmp_path / "config"
    path.write_text(kubeconfig({"token": "secret"}))

    async def story() -> None:
        await (await connect(str(path))).close()

    asyncio.run(story())


def test_no_configuration_at_all_says_what_to_set(tmp_path: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(NotConfiguredError, match="set KUBECONFIG, or run in a pod with a service account"):
        asyncio.run(connect(str(tmp_path / "none")))
