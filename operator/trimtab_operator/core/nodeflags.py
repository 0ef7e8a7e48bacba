"""A replica on several nodes: the flags by which vLLM's processes find each other.

All nodes run `vllm serve` with the same flags; the leader (rank 0) answers requests and the others are headless.
Sources: vLLM, engine/arg_utils.py (`--nnodes`), entrypoints/cli/serve.py (`run_headless`); the variables are those
that LeaderWorkerSet sets in every container.
"""

from trimtab_crds.inferencepool import InferencePool

LEADER_ADDRESS = "$(LWS_LEADER_ADDRESS)"
WORKER_INDEX = "$(LWS_WORKER_INDEX)"


def of_all(pool: InferencePool) -> tuple[str, ...]:
    """What every node of the replica is told; nothing where it has one."""
    nodes = pool.spec.accelerator.nodes
    return ("--nnodes", str(nodes)) if nodes > 1 else ()


def of_leader() -> tuple[str, ...]:
    """What the first node is told besides."""
    return ("--node-rank", "0", "--master-addr", LEADER_ADDRESS)


def of_worker(*, rank: str = WORKER_INDEX, leader: str = LEADER_ADDRESS) -> tuple[str, ...]:
    """What the others are told besides."""
    return ("--node-rank", rank, "--master-addr", leader, "--headless")
