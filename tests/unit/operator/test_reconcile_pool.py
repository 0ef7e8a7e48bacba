"""Passes over a pool: what is applied, what is left alone, what the status says."""

import asyncio

import pytest

from support.operatorparts import H100, Bench
from trimtab_operator.core import names
from trimtab_operator.core.kinds import CONFIG_MAP, DEPLOYMENT, DISRUPTION_BUDGET, POOL, SERVICE
from trimtab_operator.core.pacing import Result
from trimtab_operator.shell.cluster import ClusterError
from trimtab_operator.shell.deps import mark_broken
from trimtab_operator.shell.reconcile import reconcile_pool

KEY = ("default", "low")


def run(bench: Bench, times: int = 1) -> Result:
    result = Result.GONE
    for _ in range(times):
        result = asyncio.run(reconcile_pool(bench.refresh(), KEY))
    return result


@pytest.fixture
def bench() -> Bench:
    made = Bench()
    made.add_pool()
    return made


def start(bench: Bench, replicas: int = 1) -> None:
    """The pool's Deployment has that many replicas and they answer."""
    run(bench)
    body = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": bench.engine(), "namespace": "default"},
        "spec": {"replicas": replicas},
    }
    asyncio.run(bench.cluster.apply(body, manager=names.REPLICAS_MANAGER))
    bench.run_pods(ready=replicas)
    bench.settle(bench.engine(), ready=replicas)
    run(bench)
    bench.cluster.writes()


def test_a_new_pool_gets_its_children_and_starts_empty(bench: Bench):
    assert run(bench) is Result.DONE
    kinds = [kind for call, kind, name in bench.cluster.writes() if call == "apply"]
    assert kinds == ["Service", "PodDisruptionBudget", "Deployment"]
    assert bench.cluster.one(DEPLOYMENT, bench.engine())["spec"]["replicas"] == 0
    assert bench.conditions(POOL, "low") == {
        "RecipeValid": ("True", "Accepted"),
        "NodesReady": ("True", "Scheduled"),
        "RolledOut": ("True", "UpToDate"),
        "Ready": ("False", "WaitingForReplicas"),
        "Reconciling": ("True", "WaitingForReplicas"),
    }


def test_every_child_names_its_owner(bench: Bench):
    run(bench)
    uid = bench.cluster.one(POOL, "low")["metadata"]["uid"]
    for kind in (DEPLOYMENT, SERVICE, DISRUPTION_BUDGET):
        name = bench.engine() if kind == DEPLOYMENT else "low-engine"
        (reference,) = bench.cluster.one(kind, name)["metadata"]["ownerReferences"]
        assert (reference["uid"], reference["controller"]) == (uid, True)


def test_an_unchanged_world_costs_no_write(bench: Bench):
    start(bench)
    assert run(bench, times=3) is Result.DONE
    assert bench.cluster.writes() == []
    assert bench.conditions(POOL, "low") == {
        "RecipeValid": ("True", "Accepted"),
        "NodesReady": ("True", "Scheduled"),
        "RolledOut": ("True", "UpToDate"),
        "Ready": ("True", "Available"),
    }


def test_a_lagging_watch_costs_no_second_write(bench: Bench):
    deps = bench.refresh()
    asyncio.run(reconcile_pool(deps, KEY))
    bench.cluster.writes()
    assert asyncio.run(reconcile_pool(deps, KEY)) is Result.DONE
    assert [call for call in bench.cluster.writes() if call[0] == "apply"] == []


def test_an_edit_makes_a_revision_without_replicas_and_leaves_the_old_one_alone(bench: Bench):
    start(bench)
    old = bench.cluster.one(DEPLOYMENT, bench.engine())
    bench.cluster.change(POOL, "low", {"spec": {"recipe": {"preset": "throughput"}}})
    run(bench, times=2)
    deployment = bench.cluster.one(DEPLOYMENT, bench.engine())
    command = deployment["spec"]["template"]["spec"]["containers"][0]["command"]
    assert command[command.index("--performance-mode") + 1] == "throughput"
    assert deployment["spec"]["replicas"] == 0
    assert bench.cluster.one(DEPLOYMENT, old["metadata"]["name"]) == old
    assert bench.conditions(POOL, "low")["RolledOut"] == ("False", "RollingOut")
    assert bench.conditions(POOL, "low")["Ready"] == ("False", "RollingOut")


def test_replicas_that_nobody_wrote_yet_survive_an_apply(bench: Bench):
    """Whoever applies a Deployment without `replicas` that nobody else owns makes the server default it to 1."""
    run(bench)
    bench.cluster.change(DEPLOYMENT, bench.engine(), {"spec": {"progressDeadlineSeconds": 1}})
    bench.cluster.writes()
    run(bench)
    deployment = bench.cluster.one(DEPLOYMENT, bench.engine())
    assert ("apply", "Deployment", bench.engine()) in bench.cluster.writes()
    assert deployment["spec"]["progressDeadlineSeconds"] > 1
    assert deployment["spec"]["replicas"] == 0
    assert names.REPLICAS_MANAGER in {f["manager"] for f in deployment["metadata"]["managedFields"]}


def test_drift_in_a_child_is_taken_back(bench: Bench):
    start(bench)
    bench.cluster.change(SERVICE, "low-engine", {"spec": {"publishNotReadyAddresses": True}})
    run(bench)
    assert bench.cluster.one(SERVICE, "low-engine")["spec"]["publishNotReadyAddresses"] is False


def test_a_child_that_lost_its_label_is_found_by_name(bench: Bench):
    start(bench)
    meta = bench.cluster.one(SERVICE, "low-engine")["metadata"]
    del meta["labels"][names.POOL_LABEL]
    meta["resourceVersion"] = "later"
    run(bench)
    assert bench.cluster.one(SERVICE, "low-engine")["metadata"]["labels"][names.POOL_LABEL] == "low"


def test_a_foreign_object_is_never_touched_and_the_rest_is_made(bench: Bench):
    theirs = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "low-engine"}, "spec": {"x": 1}}
    before = bench.cluster.put(theirs)
    assert run(bench) is Result.BLOCKED
    assert bench.cluster.one(SERVICE, "low-engine") == before
    assert bench.engine()
    assert bench.conditions(POOL, "low")["Ready"] == ("False", "NotOurs")
    assert bench.conditions(POOL, "low")["Stalled"] == ("True", "NotOurs")
    assert bench.message(POOL, "low", "Ready") == (
        "Service low-engine exists and belongs to somebody else; delete or rename it"
    )


def test_an_object_of_an_earlier_pool_by_the_same_name_is_foreign(bench: Bench):
    run(bench)
    bench.cluster.remove(POOL, "low")
    bench.add_pool()
    assert run(bench) is Result.BLOCKED
    assert f"Deployment {bench.engine()}" in bench.message(POOL, "low", "Ready")


def test_a_child_that_ends_is_waited_for(bench: Bench):
    start(bench)
    bench.cluster.change(SERVICE, "low-engine", {"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}})
    assert run(bench) is Result.BLOCKED
    assert bench.conditions(POOL, "low")["Ready"] == ("False", "ChildEnding")


def test_what_is_no_longer_desired_is_deleted(bench: Bench):
    start(bench)
    reference = bench.cluster.one(SERVICE, "low-engine")["metadata"]["ownerReferences"]
    left_over = {"name": "old", "labels": {names.POOL_LABEL: "low"}, "ownerReferences": reference}
    bench.cluster.put({"apiVersion": "v1", "kind": "ConfigMap", "metadata": left_over})
    not_ours = {"name": "theirs", "labels": {names.POOL_LABEL: "low"}}
    bench.cluster.put({"apiVersion": "v1", "kind": "ConfigMap", "metadata": not_ours})
    run(bench)
    assert ("delete", "ConfigMap", "old") in bench.cluster.writes()
    assert bench.cluster.one(CONFIG_MAP, "theirs")


def test_a_refused_recipe_leaves_the_engines_running(bench: Bench):
    start(bench, replicas=2)
    before = bench.cluster.one(DEPLOYMENT, bench.engine())
    bench.cluster.change(POOL, "low", {"spec": {"engine": {"args": ["-tp", "2"]}}})
    assert run(bench) is Result.INVALID
    assert bench.cluster.one(DEPLOYMENT, bench.engine()) == before
    assert bench.conditions(POOL, "low") == {
        "RecipeValid": ("False", "RecipeRefused"),
        "NodesReady": ("True", "Scheduled"),
        "RolledOut": ("True", "UpToDate"),
        "Ready": ("False", "RecipeRefused"),
        "Stalled": ("True", "RecipeRefused"),
    }
    sentence = "engine.args -tp sets -tp, which the recipe owns; remove it and use recipe.parallelism.tensor"
    assert bench.message(POOL, "low", "RecipeValid") == sentence
    assert bench.cluster.one(POOL, "low")["status"]["flags"], "the engines go on with the last accepted flags"


def test_a_spec_that_cannot_be_read_changes_nothing(bench: Bench):
    start(bench)
    bench.cluster.change(POOL, "low", {"spec": {"accelerator": {"name": "abacus"}}})
    assert run(bench) is Result.INVALID
    assert bench.conditions(POOL, "low")["RecipeValid"] == ("Unknown", "SpecInvalid")
    assert bench.message(POOL, "low", "Ready").startswith("spec.accelerator.name: 'abacus' is not in the catalogue")
    assert [kind for call, kind, _ in bench.cluster.writes() if call == "apply"] == []


def test_a_child_that_the_server_refuses_is_said_so(bench: Bench):
    bench.cluster.fail_next["apply"] = ClusterError("apply", 422, "spec.x: Invalid value")
    assert run(bench) is Result.BLOCKED
    assert bench.conditions(POOL, "low")["Ready"] == ("False", "ApplyRejected")
    assert bench.message(POOL, "low", "Ready") == ("the API server refused Service low-engine: spec.x: Invalid value")


@pytest.mark.parametrize("status", [0, 409, 429, 500, 503], ids=lambda s: f"status {s}")
def test_a_failure_that_passes_is_the_loops_business(bench: Bench, status: int):
    bench.cluster.fail_next["apply"] = ClusterError("apply", status, "not now")
    with pytest.raises(ClusterError):
        run(bench)
    assert bench.conditions(POOL, "low") == {}


def test_a_child_that_was_replaced_meanwhile_is_looked_at_again(bench: Bench):
    start(bench)
    bench.cluster.change(SERVICE, "low-engine", {"spec": {"publishNotReadyAddresses": True}})
    why = 'metadata.uid: Invalid value: "uid-2": field is immutable'
    bench.cluster.fail_next["apply"] = ClusterError("apply", 422, why)
    with pytest.raises(ClusterError):
        run(bench)
    assert bench.conditions(POOL, "low")["Ready"] == ("True", "Available")


def test_a_pool_that_is_gone_or_ends_is_left_alone(bench: Bench):
    bench.cluster.change(POOL, "low", {"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}})
    assert run(bench) is Result.GONE
    bench.cluster.remove(POOL, "low")
    assert run(bench) is Result.GONE
    assert bench.cluster.writes() == []


def test_gpus_are_those_that_pods_hold_not_those_the_spec_says(bench: Bench):
    start(bench)
    bench.run_pods(ready=1, draining=2, gpus=4)
    run(bench)
    assert bench.cluster.one(POOL, "low")["status"]["gpus"] == 12


def test_one_event_for_one_transition(bench: Bench):
    start(bench)
    assert [(e["reason"], e["type"]) for e in bench.cluster.events] == [("Available", "Normal")]
    bench.run_pods(ready=0)
    run(bench, times=2)
    bench.run_pods(ready=0, starting=1)
    run(bench, times=2)
    assert [(e["reason"], e["type"]) for e in bench.cluster.events[1:]] == [("PodsNotReady", "Normal")]
    bench.cluster.change(POOL, "low", {"spec": {"engine": {"args": ["-tp", "2"]}}})
    run(bench, times=2)
    new = [(e["reason"], e["type"]) for e in bench.cluster.events[2:]]
    assert new == [("RecipeRefused", "Warning")] * 3, "RecipeValid, Ready and Stalled"


def test_an_event_that_cannot_be_posted_stops_nothing(bench: Bench):
    start(bench)
    bench.cluster.fail_next["create_event"] = ClusterError("create", 403, "no")
    bench.run_pods(ready=0)
    assert run(bench) is Result.DONE
    assert bench.conditions(POOL, "low")["Ready"][0] == "False"


def test_a_bug_is_said_in_the_status_once(bench: Bench):
    start(bench)
    asyncio.run(mark_broken(bench.refresh(), POOL, KEY))
    assert bench.conditions(POOL, "low")["Ready"] == ("False", "InternalError")
    assert bench.conditions(POOL, "low")["RecipeValid"] == ("True", "Accepted")
    bench.cluster.writes()
    asyncio.run(mark_broken(bench.refresh(), POOL, KEY))
    assert bench.cluster.writes() == []


def test_the_owner_s_labels_do_not_travel_but_for_the_allowed_one():
    bench = Bench()
    labels = {"app.kubernetes.io/part-of": "assistant", "argocd.argoproj.io/instance": "prod"}
    bench.add_pool(metadata__labels=labels, metadata__annotations={"argocd.argoproj.io/tracking-id": "x"})
    run(bench)
    deployment = bench.cluster.one(DEPLOYMENT, bench.engine())
    assert deployment["metadata"]["labels"]["app.kubernetes.io/part-of"] == "assistant"
    assert "argocd.argoproj.io/instance" not in deployment["metadata"]["labels"]
    assert list(deployment["metadata"]["annotations"]) == [names.DIGEST_ANNOTATION]
    template = deployment["spec"]["template"]["metadata"]
    assert "app.kubernetes.io/part-of" not in template["labels"], "an edit of it must not roll pods"


def test_capacity_is_a_prior_of_the_model_s_shape(bench: Bench):
    run(bench)
    capacity = bench.cluster.one(POOL, "low")["status"]["capacity"]
    assert capacity["source"] == "prior"
    assert capacity["concurrentSequences"] > 1
    assert bench.cluster.one(POOL, "low")["spec"]["accelerator"]["name"] == H100
