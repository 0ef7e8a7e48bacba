"""One suite for the API server in memory and for a real one: what the operator relies on, the traps included."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeVar

import pytest

from support.fakecluster import FakeCluster
from support.manifests import pool_manifest
from testcluster.cluster import Cluster
from trimtab_crds.manifests import definitions
from trimtab_operator.core.kinds import CONFIG_MAP, DEPLOYMENT, LEASE, NODE_POOL, POOL, Kind
from trimtab_operator.shell.cluster import ClusterError, FencedError, connect

pytestmark = pytest.mark.contract

NAMESPACE = "cluster-port"
T = TypeVar("T")
Story = Callable[[Any], Awaitable[T]]


@pytest.fixture(scope="module")
def kubeconfig(api_server: Cluster) -> Iterator[str]:
    api_server.install_crds(definitions().values())
    api_server.namespace(NAMESPACE)
    yield str(api_server.kubeconfig)
    api_server.remove_namespace(NAMESPACE, wait=False)


@pytest.fixture(params=["fake", "real"])
def run(request: pytest.FixtureRequest) -> Callable[[Story[T]], T]:
    """Runs a story against a port."""
    if request.param == "fake":
        return lambda story: asyncio.run(_awaited(story(FakeCluster())))
    kubeconfig = request.getfixturevalue("kubeconfig")

    async def on_a_server(story: Story[T]) -> T:
        cluster = await connect(kubeconfig)
        try:
            return await story(cluster)
        finally:
            await cluster.close()

    return lambda story: asyncio.run(on_a_server(story))


async def _awaited(story: Awaitable[T]) -> T:
    return await story


def config_map(name: str, data: dict[str, str] | None, **meta: Any) -> dict[str, Any]:
    body: dict[str, Any] = {"apiVersion": "v1", "kind": "ConfigMap"}
    body["metadata"] = {"name": name, "namespace": NAMESPACE, **meta}
    return body | ({"data": data} if data is not None else {})


def deployment(name: str, replicas: int | None, image: str = "localhost/none") -> dict[str, Any]:
    labels = {"app": name}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": image}]}}
    spec: dict[str, Any] = {"selector": {"matchLabels": labels}, "template": template}
    if replicas is not None:
        spec["replicas"] = replicas
    meta = {"name": name, "namespace": NAMESPACE}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": spec}


def only_replicas(name: str, replicas: int, **meta: Any) -> dict[str, Any]:
    body = deployment(name, None)
    return body | {"metadata": body["metadata"] | meta, "spec": {"replicas": replicas}}


def test_an_apply_makes_an_object_and_a_get_shows_it(run: Callable[[Story[Any]], Any]):
    async def story(cluster: Any) -> None:
        assert await cluster.get(CONFIG_MAP, NAMESPACE, "made") is None
        made = await cluster.apply(config_map("made", {"a": "1"}), manager="m")
        found = await cluster.get(CONFIG_MAP, NAMESPACE, "made")
        assert found["metadata"]["uid"] == made["metadata"]["uid"]
        assert (found["kind"], found["data"]) == ("ConfigMap", {"a": "1"})

    run(story)


def test_a_field_that_is_no_longer_applied_goes(run: Callable[[Story[Any]], Any]):
    async def story(cluster: Any) -> None:
        await cluster.apply(config_map("shrinks", {"a": "1", "b": "2"}), manager="m")
        after = await cluster.apply(config_map("shrinks", {"a": "1"}), manager="m")
        assert after["data"] == {"a": "1"}

    run(story)


def test_an_apply_that_changes_nothing_keeps_the_version(run: Callable[[Story[Any]], Any]):
    async def story(cluster: Any) -> None:
        first = await cluster.apply(config_map("same", {"a": "1"}), manager="m")
        again = await cluster.apply(config_map("same", {"a": "1"}), manager="m")
        assert first["metadata"]["resourceVersion"] == again["metadata"]["resourceVersion"]

    run(story)


def test_a_manager_that_leaves_out_replicas_it_alone_owns_resets_them_to_1(run: Callable[[Story[Any]], Any]):
    """The trap that `ownership.replicas_claimed` is about."""

    async def story(cluster: Any) -> None:
        await cluster.apply(deployment("alone", 0), manager="m")
        assert (await cluster.apply(deployment("alone", None), manager="m"))["spec"]["replicas"] == 1

    run(story)


def test_replicas_stay_with_their_own_writer(run: Callable[[Story[Any]], Any]):
    async def story(cluster: Any) -> None:
        await cluster.apply(deployment("shared", 0), manager="m")
        await cluster.apply(only_replicas("shared", 0), manager="replicas")
        kept = await cluster.apply(deployment("shared", None, image="localhost/other"), manager="m")
        assert kept["spec"]["replicas"] == 0
        await cluster.apply(only_replicas("shared", 3), manager="replicas")
        kept = await cluster.apply(deployment("shared", None), manager="m")
        assert kept["spec"]["replicas"] == 3

    run(story)


def test_a_uid_is_a_precondition(run: Callable[[Story[Any]], Any]):
    async def story(cluster: Any) -> None:
        made = await cluster.apply(config_map("mine", {"a": "1"}), manager="m")
        await cluster.apply(config_map("mine", {"a": "2"}, uid=made["metadata"]["uid"]), manager="m")
        other = "00000000-0000-0000-0000-000000000000"
        with pytest.raises(ClusterError) as refused:
            await cluster.apply(config_map("mine", {"a": "3"}, uid=other), manager="m")
        assert refused.value.is_precondition
        assert (await cluster.get(CONFIG_MAP, NAMESPACE, "mine"))["data"] == {"a": "2"}

    run(story)


def test_a_resource_version_is_a_precondition(run: Callable[[Story[Any]], Any]):
    async def story(cluster: Any) -> None:
        old = await cluster.apply(deployment("versioned", 1), manager="m")
        version = old["metadata"]["resourceVersion"]
        await cluster.apply(deployment("versioned", 2), manager="m")
        with pytest.raises(ClusterError) as refused:
            await cluster.apply(only_replicas("versioned", 5, resourceVersion=version), manager="replicas")
        assert refused.value.is_precondition

    run(story)


def test_a_delete_takes_that_very_object_and_forgives_its_absence(run: Callable[[Story[Any]], Any]):
    async def story(cluster: Any) -> None:
        made = await cluster.apply(config_map("ends", {}), manager="m")
        await cluster.delete(CONFIG_MAP, NAMESPACE, "ends", uid="00000000-0000-0000-0000-000000000000")
        assert await cluster.get(CONFIG_MAP, NAMESPACE, "ends") is not None
        for _ in range(2):
            await cluster.delete(CONFIG_MAP, NAMESPACE, "ends", uid=made["metadata"]["uid"])
        assert await cluster.get(CONFIG_MAP, NAMESPACE, "ends") is None

    run(story)


def test_a_list_takes_label_selectors(run: Callable[[Story[Any]], Any]):
    async def story(cluster: Any) -> None:
        for name in ("red", "green", "blue"):
            await cluster.apply(config_map(name, {}, labels={"colour": name}), manager="m")

        async def names(selector: str, namespace: str | None = NAMESPACE) -> list[str]:
            found = await cluster.list_all(CONFIG_MAP, namespace, selector)
            return sorted(item["metadata"]["name"] for item in found)

        assert await names("colour=red") == ["red"]
        assert await names("colour in (blue,red)") == ["blue", "red"]
        assert await names("colour in (blue,red)", None) == ["blue", "red"]
        assert await names("colour=black") == []

    run(story)


def test_a_status_is_written_beside_the_spec(run: Callable[[Story[Any]], Any]):
    async def story(cluster: Any) -> None:
        pool = pool_manifest("stated", metadata__namespace=NAMESPACE)
        made = await cluster.apply(pool, manager="user")
        body = {key: pool[key] for key in ("apiVersion", "kind", "metadata")}
        status = {"replicas": 2, "flags": ["--a"]}
        after = await cluster.apply_status(body | {"status": status}, manager="status")
        assert {key: after["status"][key] for key in status} == status
        assert after["metadata"]["generation"] == made["metadata"]["generation"]
        after = await cluster.apply_status(body | {"status": {"replicas": 3}}, manager="status")
        assert "flags" not in after["status"]
        stored = (await cluster.get(POOL, NAMESPACE, "stated"))["spec"]["model"]
        assert pool["spec"]["model"].items() <= stored.items(), "with defaults, where there are any"

    run(story)


def test_a_lease_is_made_once_and_replaced_in_turn(run: Callable[[Story[Any]], Any]):
    async def story(cluster: Any) -> None:
        meta = {"name": "turn", "namespace": NAMESPACE}
        body = {"apiVersion": LEASE.api_version, "kind": "Lease", "metadata": meta, "spec": {"holderIdentity": "a"}}
        made = await cluster.create(LEASE, body, timeout_seconds=5)
        with pytest.raises(ClusterError) as taken:
            await cluster.create(LEASE, body, timeout_seconds=5)
        assert taken.value.status == 409
        await cluster.replace(LEASE, made | {"spec": {"holderIdentity": "b"}}, timeout_seconds=5)
        with pytest.raises(ClusterError) as late:
            await cluster.replace(LEASE, made | {"spec": {"holderIdentity": "c"}}, timeout_seconds=5)
        assert late.value.is_precondition
        assert (await cluster.get(LEASE, NAMESPACE, "turn"))["spec"]["holderIdentity"] == "b"

    run(story)


def test_a_field_that_the_schema_does_not_have_never_passes(kubeconfig: str):
    """The API server answers 500 to it, which must not look like a failure of the server."""

    async def story() -> ClusterError:
        cluster = await connect(kubeconfig)
        try:
            with pytest.raises(ClusterError) as refused:
                await cluster.apply(config_map("odd", None) | {"dataa": {}}, manager="m")
            return refused.value
        finally:
            await cluster.close()

    error = asyncio.run(story())
    assert not error.passes
    assert "dataa" in error.message


def test_who_may_not_write_is_stopped_before_the_request(kubeconfig: str):
    async def story() -> None:
        cluster = await connect(kubeconfig)
        cluster.may_write = lambda: False
        try:
            with pytest.raises(FencedError):
                await cluster.apply(config_map("fenced", {}), manager="m")
            with pytest.raises(FencedError):
                await cluster.create_event({"metadata": {"namespace": NAMESPACE}})
            assert await cluster.get(CONFIG_MAP, NAMESPACE, "fenced") is None
        finally:
            await cluster.close()

    asyncio.run(story())


def test_kinds_that_are_served_and_kinds_that_are_not(run: Callable[[Story[list[bool]]], list[bool]]):
    async def story(cluster: Any) -> list[bool]:
        absent = Kind("nobody.trimtab.test/v1", "Nothing", "nothings")
        unknown = Kind("apps/v1", "Deploymint", "deploymints")
        if isinstance(cluster, FakeCluster):
            cluster.not_served.update((absent, unknown))
        return [await cluster.serves(kind) for kind in (DEPLOYMENT, POOL, absent, unknown)]

    assert run(story) == [True, True, False, False]


def test_what_is_in_no_namespace_or_of_no_kind_is_absent(run: Callable[[Story[None]], None]):
    async def story(cluster: Any) -> None:
        for kind in (NODE_POOL, Kind("nobody.trimtab.test/v1", "Nothing", "nothings")):
            assert await cluster.get(kind, None, "nobody") is None
            await cluster.delete(kind, None, "nobody", uid="x")

    run(story)
