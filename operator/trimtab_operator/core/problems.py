"""Why an object cannot be what its spec says: a machine reason and a sentence with field, value and fix."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One reason not to be Ready. `passing` problems may go away without a new spec."""

    reason: str
    message: str
    passing: bool = False


def spec_invalid(problems: Iterable[str]) -> Problem:
    """The spec contradicts itself, or names what does not exist."""
    return Problem("SpecInvalid", "; ".join(problems))


def recipe_refused(reasons: Iterable[str]) -> Problem:
    """vLLM could not run the recipe on this GPU."""
    return Problem("RecipeRefused", "; ".join(reasons))


def not_ours(children: Iterable[str]) -> Problem:
    """Objects of the names that we need belong to somebody else."""
    names = ", ".join(children)
    return Problem("NotOurs", f"{names} exists and belongs to somebody else; delete or rename it", passing=True)


def apply_rejected(what: str, why: str) -> Problem:
    """The API server refused a child."""
    return Problem("ApplyRejected", f"the API server refused {what}: {why}", passing=True)


def nodes_api_missing(mode: str, api: str) -> Problem:
    """The project that makes the nodes is not installed."""
    message = f"nodes.mode {mode} needs {api}, which this cluster does not serve; install it, or set nodes.mode Static"
    return Problem("NodesApiMissing", message, passing=True)


def claims_api_missing(api: str) -> Problem:
    """The cluster is too old for Dynamic Resource Allocation."""
    message = (
        f"accelerator.allocation DRA needs {api}, which this cluster does not serve; "
        "use Kubernetes 1.34 or later, or set accelerator.allocation DevicePlugin"
    )
    return Problem("NodesApiMissing", message, passing=True)


def groups_api_missing(nodes: int, api: str) -> Problem:
    """What makes replicas on several nodes is not installed."""
    message = (
        f"accelerator.nodes {nodes} needs {api}, which this cluster does not serve; "
        "install LeaderWorkerSet (lws.sigs.k8s.io), or set accelerator.nodes to 1"
    )
    return Problem("GroupsApiMissing", message, passing=True)


def nodes_forbidden(mode: str, what: str) -> Problem:
    """The operator may not write outside of namespaces."""
    message = (
        f"nodes.mode {mode}: the operator may not write {what}, which is in no namespace; install the chart without "
        "watchNamespaces, or set nodes.mode Static"
    )
    return Problem("NodesForbidden", message, passing=True)


def child_ending(what: str) -> Problem:
    """A child of that name is being deleted; the new one has to wait."""
    return Problem("ChildEnding", f"{what} is being deleted; it is made again when it is gone", passing=True)
