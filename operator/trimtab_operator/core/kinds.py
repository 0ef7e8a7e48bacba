"""The kinds that the operator reads or writes, and their addresses at the API server."""

from dataclasses import dataclass

from trimtab_crds.meta import API_VERSION


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of object, in a namespace or (`namespace` None in `path`) in none."""

    api_version: str
    kind: str
    plural: str

    def path(self, namespace: str | None, name: str | None = None, subresource: str | None = None) -> str:
        """URL path of the collection (all namespaces when None), of one object, or of its subresource."""
        prefix = "/api" if "/" not in self.api_version else "/apis"
        parts = [prefix, self.api_version]
        if namespace is not None:
            parts += ["namespaces", namespace]
        return "/".join([*parts, self.plural, *(part for part in (name, subresource) if part is not None)])


POOL = Kind(API_VERSION, "InferencePool", "inferencepools")
POLICY = Kind(API_VERSION, "RoutingPolicy", "routingpolicies")
DEPLOYMENT = Kind("apps/v1", "Deployment", "deployments")
LEADER_WORKER_SET = Kind("leaderworkerset.x-k8s.io/v1", "LeaderWorkerSet", "leaderworkersets")
SERVICE = Kind("v1", "Service", "services")
CONFIG_MAP = Kind("v1", "ConfigMap", "configmaps")
DISRUPTION_BUDGET = Kind("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets")
NETWORK_POLICY = Kind("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies")
POD = Kind("v1", "Pod", "pods")
EVENT = Kind("v1", "Event", "events")
NODE_POOL = Kind("karpenter.sh/v1", "NodePool", "nodepools")
COMPUTE_CLASS = Kind("cloud.google.com/v1", "ComputeClass", "computeclasses")
CLAIM_TEMPLATE = Kind("resource.k8s.io/v1", "ResourceClaimTemplate", "resourceclaimtemplates")
AUTOSCALER = Kind("autoscaling/v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers")
SCALED_OBJECT = Kind("keda.sh/v1alpha1", "ScaledObject", "scaledobjects")
LEASE = Kind("coordination.k8s.io/v1", "Lease", "leases")

#: Kinds of other projects, in no namespace: not watched, and there only where their project is installed.
NODE_KINDS = (NODE_POOL, COMPUTE_CLASS)
#: Kinds that hold a pool's replicas; the second is of another project and not watched.
WORKLOADS = (DEPLOYMENT, LEADER_WORKER_SET)
#: Autoscalers of others, which may drive a pool by its `/scale`.
AUTOSCALER_KINDS = (AUTOSCALER, SCALED_OBJECT)
CHILDREN = (DEPLOYMENT, SERVICE, CONFIG_MAP, DISRUPTION_BUDGET, NETWORK_POLICY)
BY_NAME = {
    kind.kind: kind
    for kind in (
        POOL,
        POLICY,
        *CHILDREN,
        LEADER_WORKER_SET,
        *NODE_KINDS,
        *AUTOSCALER_KINDS,
        CLAIM_TEMPLATE,
        POD,
        EVENT,
        LEASE,
    )
}
