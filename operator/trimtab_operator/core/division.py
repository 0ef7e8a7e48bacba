"""What two pools need to share a prompt: one reads it, the other fetches its cache and answers (NIXL).

Engines compare themselves by a hash before they exchange a cache; where it differs, the answering one reads every
prompt again and only its log says so. What the hash is made of is therefore compared here (vLLM,
distributed/kv_transfer/kv_connector/v1/nixl/metadata.py, compute_nixl_compatibility_hash).
"""

from collections.abc import Iterator, Mapping

from trimtab_crds.inferencepool import InferencePool
from trimtab_crds.routingpolicy import Tier
from trimtab_operator.core.recipe import resolve

Pools = Mapping[str, InferencePool]
#: Flags that decide what a cache holds and how, after the field that owns each.
_SAME_FLAGS = {
    "--dtype": "engine.args --dtype",
    "--quantization": "recipe.quantization",
    "--kv-cache-dtype": "recipe.kvCache.dtype",
    "--block-size": "engine.args --block-size",
    "--attention-backend": "engine.args --attention-backend",
    "--speculative-config": "recipe.speculation",
    "--decode-context-parallel-size": "recipe.parallelism.decodeContext",
}


def role_of(pool: InferencePool) -> str | None:
    """The pool's role in disaggregation, if any."""
    asked = pool.spec.recipe.disaggregation
    return asked.role if asked else None


def division_problems(field: str, tier: Tier, pools: Pools) -> Iterator[str]:
    """Prompts that one pool reads and another answers: both have their role, and caches that mean the same."""
    pool, reference = pools[tier.pool_ref.name], tier.prefill_pool_ref
    name = pool.metadata.name
    if reference is None:
        if role_of(pool) is not None:
            yield (
                f"{field}.poolRef.name {name} has recipe.disaggregation.role {role_of(pool)}, and the tier has no "
                "prefillPoolRef; set it, or remove disaggregation from the pool"
            )
        return
    field = f"{field}.prefillPoolRef.name {reference.name}"
    if (prefill := pools.get(reference.name)) is None:
        yield f"{field} is not an InferencePool of namespace {pool.metadata.namespace}; create it or correct the name"
        return
    for one, wanted in ((prefill, "Prefill"), (pool, "Decode")):
        if role_of(one) != wanted:
            yield f"{field} needs recipe.disaggregation.role {wanted} on pool {one.metadata.name}; set it there"
    for what, theirs, ours in _compared(prefill, pool):
        if theirs != ours:
            yield (
                f"{field} has {what} {_shown(theirs)}, and pool {name} {_shown(ours)}; make them the same, else "
                "engines cannot use each other's caches"
            )
    theirs_context, ours_context = prefill.spec.model.context_tokens, pool.spec.model.context_tokens
    if theirs_context and ours_context and theirs_context < ours_context:
        yield (
            f"{field} has model.contextTokens {theirs_context}, below the {ours_context} of pool {name}; "
            "it has to read every prompt of the tier, so raise it"
        )


def _compared(prefill: InferencePool, decode: InferencePool) -> Iterator[tuple[str, str | None, str | None]]:
    """What has to be the same, with the value of either pool."""
    theirs, ours = prefill.spec, decode.spec
    yield "model.name", theirs.model.name, ours.model.name
    yield "model.revision", theirs.model.revision, ours.model.revision
    yield "engine.version", theirs.engine.version, ours.engine.version
    flags = [resolve(pool).flags for pool in (prefill, decode)]
    if all(flags):  # a recipe that is refused says so at its own pool
        for flag, field in _SAME_FLAGS.items():
            yield field, _value(flags[0], flag), _value(flags[1], flag)


def _value(flags: tuple[str, ...], flag: str) -> str | None:
    """The value of a flag, in either spelling; the last one counts."""
    found = None
    for at, given in enumerate(flags):
        if given == flag:
            found = flags[at + 1] if at + 1 < len(flags) else ""
        elif given.startswith(f"{flag}="):
            found = given.partition("=")[2]
    return found


def _shown(value: str | None) -> str:
    return "unset" if value is None else value
