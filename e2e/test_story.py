"""The whole job, told once on real parts: a real API server and node, real vLLM, a real Prometheus, real clients.

The steps build on each other and run in this order; the first that fails ends the story.
"""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import OpenAI

from story import fleet, traffic
from story.faults import sigkill
from story.gpuwatch import GpuWatch
from testcluster.cluster import is_true
from testcluster.processes import wait_until
from testcluster.story import StoryCluster

pytestmark = pytest.mark.timeout(1800)

SYSTEM = "trimtab-system"
CHART = Path(__file__).resolve().parents[1] / "charts" / "trimtab"
EASY = traffic.prompts("plain")
HARD = traffic.prompts("math")
#: Leases are renewed for as long as an operator lives; everything else must rest.
STEADY_SECONDS = 300
#: Output tokens per second that the high tier was asked for.
DEMAND_FOR_HIGH = (
    f'rate(trimtab_router_admitted_output_tokens_total{{policy="{fleet.NAMESPACE}/{fleet.POLICY}",tier="high"}}[30s])'
)
WRITES = ("create", "update", "patch", "delete", "deletecollection")


class Story:
    """What the steps share."""

    def __init__(self, cluster: StoryCluster) -> None:
        self.cluster = cluster
        self.prometheus = cluster.prometheus(fleet.scrape_configs())
        self.vllm = cluster.vllm()

    def pool(self, name: str, **spec: Any) -> fleet.Manifest:
        return fleet.pool(name, image=self.cluster.trimtab_image, vllm=self.vllm, **spec)

    def get(self, kind: str, name: str) -> Any:
        return self.cluster.get(kind, name, "-n", fleet.NAMESPACE)

    def status(self, kind: str, name: str) -> Any:
        return self.get(kind, name).get("status", {})

    def condition(self, kind: str, name: str, condition: str) -> dict[str, str]:
        found = [c for c in self.status(kind, name).get("conditions", []) if c["type"] == condition]
        return found[0] if found else {}

    def replicas(self, pool: str) -> int:
        """What the pool is meant to have now."""
        return int(self.status("tpool", pool).get("desiredReplicas", 0))

    def pods(self, pool: str, *more: str) -> list[str]:
        """Names of the pool's pods."""
        labels = ",".join((f"trimtab.dev/pool={pool}", *more))
        items = self.cluster.get("pods", "-n", fleet.NAMESPACE, "-l", labels)["items"]
        return [p["metadata"]["name"] for p in items]

    def draining(self, pool: str) -> list[str]:
        """Pods that routers no longer send to."""
        return self.pods(pool, "trimtab.dev/serving=false")

    def operator_pod(self) -> Any:
        pods = self.cluster.get("pods", "-n", SYSTEM, "-l", "app.kubernetes.io/name=trimtab")["items"]
        return next(p for p in pods if "deletionTimestamp" not in p["metadata"])

    def described(self) -> str:
        """What somebody would look at first where a step failed."""
        logs = ["logs", "-n", SYSTEM, "-l", "app.kubernetes.io/name=trimtab", "--tail=80"]
        looks = [
            ["get", "deployments", "-A"],
            ["get", "tpool,tpolicy", "-n", fleet.NAMESPACE, "-o", "yaml"],
            logs,
            [*logs, "--previous"],
        ]
        return "\n".join(self._said(*look) for look in looks)

    def glance(self) -> str:
        """The nodes, the pods and the last warnings: few enough lines for the end of a long log."""
        looks = (
            "get nodes",
            "get pods -A -o wide",
            "get events -A --field-selector type=Warning --sort-by .metadata.creationTimestamp",
        )
        return "\n".join("\n".join(self._said(*look.split()).splitlines()[-20:]) for look in looks)

    def _said(self, *argv: str) -> str:
        try:
            return f"$ kubectl {' '.join(argv)}\n{self.cluster.kubectl(*argv)}"
        except AssertionError as error:
            return str(error)


@pytest.fixture(scope="module")
def story(cluster: StoryCluster) -> Story:
    return Story(cluster)


@pytest.fixture(scope="module")
def router(story: Story) -> Iterator[str]:
    """The policy's router, as an OpenAI client reaches it."""
    with story.cluster.reach(fleet.NAMESPACE, f"{fleet.POLICY}-router", 80) as address:
        yield address


@pytest.fixture(scope="module")
def sdk(router: str) -> Iterator[OpenAI]:
    """The OpenAI SDK as a user has it."""
    with traffic.client(router) as openai:
        yield openai


@pytest.fixture(scope="module")
def gpus(story: Story) -> Iterator[GpuWatch]:
    """Follows the pods from before the first one exists until the story ends."""
    with GpuWatch(story.cluster, fleet.NAMESPACE) as watch:
        yield watch


def test_helm_installs_the_operator(story: Story) -> None:
    repository, tag = story.cluster.trimtab_image.rsplit(":", 1)
    values = [f"image.repository={repository}", f"image.tag={tag}", "image.pullPolicy=IfNotPresent"]
    flags = ["--namespace", SYSTEM, "--create-namespace", "--wait", "--timeout", "120s"]
    story.cluster.helm("install", "trimtab", CHART, *flags, *(word for v in values for word in ("--set", v)))
    assert story.cluster.kubectl("api-resources", "--api-group=trimtab.dev", "-o", "name").split() == [
        "inferencepools.trimtab.dev",
        "routingpolicies.trimtab.dev",
    ]


def test_three_pools_and_a_policy_become_ready(story: Story, gpus: GpuWatch) -> None:
    story.cluster.apply([fleet.namespace()])
    story.cluster.apply([*(story.pool(name) for name in fleet.START), fleet.policy()])
    for what in (*(f"tpool/{name}" for name in fleet.START), f"tpolicy/{fleet.POLICY}"):
        story.cluster.kubectl(
            "wait", "--for=condition=Ready", what, "-n", fleet.NAMESPACE, "--timeout=600s", timeout_seconds=620
        )
    for name, replicas in fleet.START.items():
        pool = story.get("tpool", name)
        assert pool["status"]["readyReplicas"] == replicas
        assert pool["status"]["observedGeneration"] == pool["metadata"]["generation"]
        assert is_true(pool, "RecipeValid")
        assert "--reasoning-parser" in " ".join(pool["status"]["flags"])
    assert gpus.peak == fleet.GPU_BUDGET


def test_pods_run_on_gpu_nodes_with_the_resolved_flags(story: Story) -> None:
    pods = story.cluster.get("pods", "-n", fleet.NAMESPACE, "-l", "trimtab.dev/pool=high")["items"]
    nodes = {n["metadata"]["name"]: n for n in story.cluster.get("nodes")["items"]}
    for pod in pods:
        assert int(nodes[pod["spec"]["nodeName"]]["status"]["allocatable"]["nvidia.com/gpu"]) > 0
        container = pod["spec"]["containers"][0]
        assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
        words = [*container.get("command", []), *container.get("args", [])]
        assert words[-len(story.status("tpool", "high")["flags"]) :] == story.status("tpool", "high")["flags"]


def test_easy_queries_land_on_low_and_do_not_think(story: Story, sdk: OpenAI) -> None:
    answers = [traffic.ask(sdk, prompt) for prompt in EASY]
    assert {a.tier for a in answers} == {"low"}
    assert {a.pool for a in answers} == {"low"}
    assert {a.reasoning_tokens for a in answers} == {0}


def test_hard_queries_land_on_high_and_vllm_keeps_their_budget(story: Story, sdk: OpenAI) -> None:
    answers = [traffic.ask(sdk, prompt) for prompt in HARD]
    assert {a.tier for a in answers} == {"high"}
    assert all(0 < a.reasoning_tokens <= fleet.THINKING["high"] for a in answers), answers


def test_other_real_prompts_are_answered_with_a_reason(story: Story, sdk: OpenAI) -> None:
    for prompt in traffic.prompts("gsm8k", "mmlu", "mt_bench"):
        answer = traffic.ask(sdk, prompt)
        assert answer.tier in fleet.START
        assert answer.query_class
        assert answer.reason
        assert answer.reasoning_tokens <= fleet.THINKING[answer.tier]


def test_a_long_document_goes_where_the_context_threshold_says(story: Story, sdk: OpenAI) -> None:
    answer = traffic.ask(sdk, traffic.long_document(fleet.LONG_PROMPT_TOKENS + 500))
    assert (answer.tier, answer.reason) == ("medium", "LongContext")


@pytest.mark.parametrize(
    ("options", "tier", "most_thinking"),
    [
        ({"extra_headers": {"x-trimtab-tier": "high"}}, "high", 256),
        ({"extra_headers": {"x-trimtab-budget": "100"}}, "high", 256),
        ({"extra_body": {"trimtab": {"budget": 50}}}, "medium", 128),
        ({"reasoning_effort": "none"}, "low", 0),
    ],
    ids=["tier header", "budget header", "budget field", "effort"],
)
def test_a_request_may_choose_by_hand(
    story: Story, sdk: OpenAI, options: dict[str, Any], tier: str, most_thinking: int
) -> None:
    answer = traffic.ask(sdk, "Hello!", **options)
    assert answer.tier == tier
    assert answer.reasoning_tokens <= most_thinking


def test_a_stream_stays_a_stream_and_thinks_within_its_budget(story: Story, sdk: OpenAI) -> None:
    stream = sdk.chat.completions.create(
        model="auto",
        messages=[{"role": "user", "content": HARD[0]}],
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    usage = chunks[-1].usage
    assert len(chunks) > 10
    assert usage is not None
    assert usage.completion_tokens_details is not None
    assert 0 < (usage.completion_tokens_details.reasoning_tokens or 0) <= fleet.THINKING["high"]


def test_explain_names_the_plan_and_every_rejected_candidate(story: Story, router: str) -> None:
    body = {"model": "auto", "messages": [{"role": "user", "content": HARD[0]}]}
    plan = httpx.post(f"{router}/v1/explain", json=body, timeout=60, trust_env=False).json()
    assert (plan["tier"], plan["pool"], plan["strategy"]) == ("high", "high", "single")
    assert set(plan["budget"]) == {"thinking_tokens", "output_tokens", "samples", "seconds", "cost"}
    assert {c["tier"] for c in plan["candidates"]} == set(fleet.START)
    assert all(c["reason"] for c in plan["candidates"])


def test_replicas_follow_when_the_mix_turns_hard_and_the_operator_dies_on_the_way(
    story: Story, sdk: OpenAI, gpus: GpuWatch
) -> None:
    killed = story.operator_pod()
    with traffic.Load(sdk, HARD, askers=6) as load:
        wait_until("demand for high in Prometheus", lambda: (story.prometheus.value(DEMAND_FOR_HIGH) or 0) > 100)
        wait_until("the donor shrinks", lambda: story.replicas("low") == 1)
        sigkill(story.cluster, killed, "trimtab-operator")
        assert story.replicas("high") == fleet.START["high"], "killed too late: the move was over"
        wait_until("the next operator ends the move", lambda: story.replicas("high") == 2)
        wait_until("the new replica answers", lambda: story.status("tpool", "high").get("readyReplicas") == 2)
    assert load.answers
    assert all(a.reasoning_tokens <= fleet.THINKING[a.tier] for a in load.answers)
    move = wait_until("the move in status", lambda: story.status("tpolicy", fleet.POLICY).get("lastMove"))
    assert move["pool"] == "high"
    assert story.status("tpolicy", fleet.POLICY)["decision"]


def test_open_streams_survive_a_scale_down(story: Story, sdk: OpenAI, gpus: GpuWatch) -> None:
    """Without the rebalancer, high goes back to its one replica: the other one drains, and nobody's answer is cut."""
    wait_until("two replicas of high", lambda: story.status("tpool", "high").get("readyReplicas") == 2)
    fixed = fleet.policy()
    fixed["spec"]["rebalance"]["mode"] = "Off"
    with traffic.Streams(sdk, HARD, readers=6, tier="high") as streams:
        wait_until("streams on both replicas", lambda: len(streams.ends) >= 6)
        story.cluster.apply([fixed])
        drains = wait_until("a replica that drains", lambda: story.draining("high"))
        wait_until("the end of the replica", lambda: not set(drains) & set(story.pods("high")))
    assert len(streams.ends) > 12
    assert set(streams.ends) <= {"stop", "length"}, "every stream came to its own end"
    assert story.status("tpool", "high")["desiredReplicas"] == 1
    story.cluster.apply([fleet.policy()])


def test_the_gpu_budget_held_at_every_instant(story: Story, gpus: GpuWatch) -> None:
    assert gpus.is_alive
    assert len(gpus.instants) > 20
    assert gpus.peak <= fleet.GPU_BUDGET


def test_a_recipe_that_cannot_run_is_refused_with_the_fix(story: Story) -> None:
    broken = story.pool("broken", scaling=None, replicas=1, recipe={"speculation": {"method": "eagle3"}})
    with pytest.raises(AssertionError) as refused:
        story.cluster.apply([broken])
    assert "recipe.speculation.method eagle3 needs a draft; set recipe.speculation.model" in str(refused.value)

    unfit = story.pool("unfit", scaling=None, replicas=1, accelerator={"name": "nvidia-t4-16gb"})
    story.cluster.apply([unfit])
    condition = wait_until(
        "RecipeValid False",
        lambda: (
            story.condition("tpool", "unfit", "RecipeValid").get("status") == "False"
            and story.condition("tpool", "unfit", "RecipeValid")
        ),
    )
    assert "nvidia-t4-16gb" in condition["message"]
    assert story.condition("tpool", "unfit", "Ready")["status"] == "False"
    story.cluster.kubectl("delete", "tpool", "unfit", "-n", fleet.NAMESPACE, "--timeout=300s")


def test_a_policy_over_its_budget_is_refused_with_the_fix(story: Story) -> None:
    small = fleet.policy()
    small["spec"]["rebalance"]["gpuBudget"] = [{"accelerator": fleet.ACCELERATOR, "gpus": 2}]
    story.cluster.apply([small])
    wait_until("Ready False", lambda: story.condition("tpolicy", fleet.POLICY, "Ready").get("status") == "False")
    condition = story.condition("tpolicy", fleet.POLICY, "Ready")
    assert condition["reason"] == "BudgetTooSmall"
    assert f"gpuBudget[{fleet.ACCELERATOR}].gpus 2 is below the 3 GPUs that the pools need" in condition["message"]
    assert "raise it, or lower scaling.minReplicas" in condition["message"]
    story.cluster.apply([fleet.policy()])
    wait_until("Ready again", lambda: story.condition("tpolicy", fleet.POLICY, "Ready").get("status") == "True")


@pytest.mark.timeout(3600)
def test_nothing_is_written_while_nothing_happens(story: Story) -> None:
    wait_until("the fleet rests", lambda: not _writes_during(story, 20))
    # Something happens where the machine pauses, and what rested for a moment may have waited: other windows tell.
    wait_until("five minutes without a write", lambda: not _writes_during(story, STEADY_SECONDS), 1500)


def _writes_during(story: Story, seconds: float) -> list[str]:
    """Writes of the operator, its leases aside, in the next `seconds`."""
    user = f"system:serviceaccount:{SYSTEM}:{story.operator_pod()['spec']['serviceAccountName']}"
    before = len(story.cluster.audit_events(user=user, verbs=WRITES))
    time.sleep(seconds)
    events = story.cluster.audit_events(user=user, verbs=WRITES)[before:]
    return [f"{e['verb']} {e['requestURI']}" for e in events if e.get("objectRef", {}).get("resource") != "leases"]


def test_the_operator_did_only_what_it_may(story: Story) -> None:
    user = f"system:serviceaccount:{SYSTEM}:{story.operator_pod()['spec']['serviceAccountName']}"
    events = story.cluster.audit_events(user=user)
    refused = [f"{e['verb']} {e['requestURI']}" for e in events if e.get("responseStatus", {}).get("code") == 403]
    spec_writes = [
        e["requestURI"]
        for e in events
        if e["verb"] in ("update", "patch")
        and e.get("objectRef", {}).get("resource") in ("inferencepools", "routingpolicies")
        and e["objectRef"].get("subresource") != "status"
    ]
    assert events
    assert refused == []
    # kopf keeps its finalizer in metadata; spec is never in a patch of ours, which the object's managers show.
    managed = [
        field
        for kind in ("tpool", "tpolicy")
        for item in story.cluster.get(kind, "-n", fleet.NAMESPACE, "--show-managed-fields")["items"]
        for field in item["metadata"]["managedFields"]
        if "f:spec" in field.get("fieldsV1", {}) and field["manager"] != "kubectl-client-side-apply"
    ]
    assert managed == [], spec_writes


def test_everything_is_deleted_and_nothing_is_left(story: Story, gpus: GpuWatch) -> None:
    story.cluster.kubectl("delete", "tpolicy,tpool", "--all", "-n", fleet.NAMESPACE, "--timeout=300s")
    kinds = "deployments,replicasets,pods,services,configmaps,poddisruptionbudgets,networkpolicies,endpointslices"

    def left() -> list[str]:
        items = story.cluster.get(kinds, "-n", fleet.NAMESPACE)["items"]
        names = [f"{i['kind']}/{i['metadata']['name']}" for i in items]
        return [n for n in names if n != "ConfigMap/kube-root-ca.crt"]

    wait_until("no children left", lambda: not left())
    story.cluster.helm("uninstall", "trimtab", "--namespace", SYSTEM, "--wait")
    story.cluster.kubectl("delete", "-f", CHART / "crds", "--timeout=300s")
    story.cluster.kubectl("delete", "namespace", fleet.NAMESPACE, SYSTEM, "--timeout=300s")
    roles = story.cluster.get("clusterroles,clusterrolebindings")["items"]
    assert [r["metadata"]["name"] for r in roles if "trimtab" in json.dumps(r["metadata"])] == []
