"""Who else scales a pool: HorizontalPodAutoscalers and KEDA ScaledObjects, and what the pool's condition says of them.

An autoscaler on the pool's `/scale` owns `spec.replicas`; the rebalancer then follows that number and only counts its
GPUs. An autoscaler on one of our workloads is a mistake: replicas there have one writer, and it would be overruled.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from trimtab_crds.meta import GROUP
from trimtab_operator.core import conditions
from trimtab_operator.core.conditions import Fact
from trimtab_operator.core.kinds import DEPLOYMENT, POOL, SCALED_OBJECT, WORKLOADS

Manifest = Mapping[str, Any]

_KEDA_LABEL = "scaledobject.keda.sh/name"


@dataclass(frozen=True, slots=True, order=True)
class Autoscaler:
    """One autoscaler and what it scales, all in one namespace. `target_group` is the API group of the target."""

    kind: str
    name: str
    namespace: str
    target_group: str
    target_kind: str
    target_name: str

    @property
    def title(self) -> str:
        """Kind and name."""
        return f"{self.kind} {self.name}"

    def scales_pool(self, namespace: str, pool: str) -> bool:
        """Whether it drives that pool."""
        target = (self.namespace, self.target_group, self.target_kind, self.target_name)
        return target == (namespace, GROUP, POOL.kind, pool)

    def scales_workload(self, namespace: str, names: Iterable[str]) -> bool:
        """Whether it drives one of these Deployments or LeaderWorkerSets."""
        target = (self.target_group, self.target_kind)
        is_ours = target in ((kind.api_version.partition("/")[0], kind.kind) for kind in WORKLOADS)
        return is_ours and self.namespace == namespace and self.target_name in names


def read_autoscaler(manifest: Manifest) -> Autoscaler | None:
    """The autoscaler of a manifest; None for one without a target, or that another autoscaler of ours speaks for.

    KEDA makes a HorizontalPodAutoscaler of its own for each ScaledObject; the ScaledObject is what people know.
    """
    meta, spec = manifest["metadata"], manifest.get("spec") or {}
    target = spec.get("scaleTargetRef") or {}
    if not target.get("name"):
        return None
    keda = (meta.get("labels") or {}).get(_KEDA_LABEL)
    is_kedas = manifest["kind"] != SCALED_OBJECT.kind and keda
    default = "apps/v1" if manifest["kind"] == SCALED_OBJECT.kind else ""
    group, slash, _ = str(target.get("apiVersion") or default).partition("/")
    return Autoscaler(
        kind=SCALED_OBJECT.kind if is_kedas else manifest["kind"],
        name=str(keda) if is_kedas else meta["name"],
        namespace=meta["namespace"],
        target_group=group if slash else "",
        target_kind=str(target.get("kind") or DEPLOYMENT.kind),
        target_name=str(target["name"]),
    )


def read_autoscalers(manifests: Iterable[Manifest]) -> frozenset[Autoscaler]:
    """All autoscalers of these manifests."""
    return frozenset(filter(None, map(read_autoscaler, manifests)))


def owner_of(autoscalers: Iterable[Autoscaler], namespace: str, pool: str) -> Autoscaler | None:
    """The autoscaler that drives the pool, the first by kind and name if there are several."""
    return min((a for a in autoscalers if a.scales_pool(namespace, pool)), default=None)


def scaling_owned(
    autoscalers: Iterable[Autoscaler], *, namespace: str, pool: str, workloads: Iterable[str], scaling: bool
) -> Fact | None:
    """The condition ScalingOwned; None where nobody else scales the pool. `scaling`: the pool has `spec.scaling`."""
    known, children = sorted(autoscalers), frozenset(workloads)
    mistaken = next((a for a in known if a.scales_workload(namespace, children)), None)
    if mistaken is not None:
        message = (
            f"{mistaken.title} scales {mistaken.target_kind} {mistaken.target_name}, whose replicas Trimtab alone "
            f"writes: it is overruled; set its scaleTargetRef to apiVersion {GROUP}/v1alpha1, kind {POOL.kind}, "
            f"name {pool}"
        )
        return Fact(conditions.SCALING_OWNED, status=False, reason="DeploymentScaled", message=message)
    owners = [a for a in known if a.scales_pool(namespace, pool)]
    if not owners:
        return None
    if len(owners) > 1:
        titles = " and ".join(a.title for a in owners)
        message = f"{titles} both scale this pool and will fight over spec.replicas; delete all but one"
        return Fact(conditions.SCALING_OWNED, status=False, reason="SeveralAutoscalers", message=message)
    left = "; spec.scaling is not used meanwhile: remove it, or the autoscaler" if scaling else ""
    message = f"{owners[0].title} sets spec.replicas; the rebalancer leaves it alone and counts its GPUs{left}"
    return Fact(conditions.SCALING_OWNED, status=True, reason=owners[0].kind, message=message)
