"""Which loops an event wakes."""

from contextlib import ExitStack
from typing import Any

import pytest

from support.operatorparts import Bench
from trimtab_operator.app import poke_for
from trimtab_operator.core.kinds import CONFIG_MAP, DEPLOYMENT, POD, POLICY, POOL, Kind
from trimtab_operator.shell.world import rebalance_key, wake_key

LONG = "a" * 70
LOOPS = {
    "pool low": wake_key(POOL, ("ns", "low")),
    "pool high": wake_key(POOL, ("ns", "high")),
    "long pool": wake_key(POOL, ("ns", LONG)),
    "policy": wake_key(POLICY, ("ns", "chat")),
    "rebalancer": rebalance_key(("ns", "chat")),
    "elsewhere": wake_key(POOL, ("other", "low")),
    "policy elsewhere": wake_key(POLICY, ("other", "chat")),
}
POOL_LABEL, POLICY_LABEL = {"trimtab.dev/pool": "low"}, {"trimtab.dev/policy": "chat"}


def woken(kind: Kind, meta: dict[str, Any], *, deleted: bool = False) -> set[str]:
    deps = Bench().deps
    with ExitStack() as stack:
        events = {name: stack.enter_context(deps.wakeups.listening(key)) for name, key in LOOPS.items()}
        poke_for(deps, kind, {"namespace": "ns", **meta}, deleted=deleted)
        return {name for name, event in events.items() if event.is_set()}


@pytest.mark.parametrize(
    ("kind", "meta", "deleted", "loops"),
    [
        pytest.param(POOL, {"name": "low"}, False, {"pool low", "policy", "rebalancer"}, id="a pool"),
        pytest.param(
            POLICY,
            {"name": "chat"},
            False,
            {"pool low", "pool high", "long pool", "policy", "rebalancer"},
            id="a policy: pools may have another writer of replicas now",
        ),
        pytest.param(POD, {"name": "x", "labels": POOL_LABEL}, False, {"pool low"}, id="a pod"),
        pytest.param(POD, {"name": "x", "labels": POOL_LABEL}, True, {"pool low", "rebalancer"}, id="GPUs got free"),
        pytest.param(DEPLOYMENT, {"name": "x", "labels": POOL_LABEL}, False, {"pool low", "rebalancer"}, id="a start"),
        pytest.param(DEPLOYMENT, {"name": "x", "labels": POLICY_LABEL}, False, {"policy"}, id="routers"),
        pytest.param(CONFIG_MAP, {"name": "x", "labels": POLICY_LABEL}, True, {"policy"}, id="a child is gone"),
        pytest.param(POD, {"name": "x", "labels": {"app": "web"}}, True, set(), id="nobody's"),
        pytest.param(POD, {"name": "x"}, False, set(), id="no labels"),
    ],
)
def test_an_event_wakes_whom_it_concerns(kind: Kind, meta: dict[str, Any], deleted: bool, loops: set[str]):
    assert woken(kind, meta, deleted=deleted) == loops


def test_a_name_too_long_for_a_label_still_wakes_its_pool():
    value = LOOPS["long pool"][2]
    assert len(value) == 63
    assert woken(POD, {"name": "x", "labels": {"trimtab.dev/pool": value}}) == {"long pool"}
