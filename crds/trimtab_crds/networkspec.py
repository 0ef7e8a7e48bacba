"""Who may reach the pods of a pool or of a policy (NetworkPolicy, networking.k8s.io/v1)."""

from typing import Any, ClassVar

from pydantic import Field

from trimtab_crds.meta import Rule, Spec


class Network(Spec):
    """A NetworkPolicy for the pods; it needs a network plugin that enforces them."""

    isolated: bool = Field(
        default=False,
        description="Let only those reach the pods who have to: engines are reached by the routers of the policies "
        "that use the pool, the operator and Prometheus; routers by clients on their port for requests, and by "
        "Prometheus on the one for metrics.",
    )
    allow_from: list[dict[str, Any]] = Field(
        default_factory=list,
        description="More peers that may reach the port for requests, as in a NetworkPolicy's `from`. For routers: "
        "instead of everybody.",
        max_length=16,
    )

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.isolated || !has(self.allowFrom) || size(self.allowFrom) == 0",
            lambda n: n.isolated or not n.allow_from,
            "network.allowFrom has no effect without network.isolated; set isolated to true or remove allowFrom",
        ),
    )
