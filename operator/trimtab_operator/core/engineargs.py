"""`engine.args` may add to a recipe but never override it: which flags are owned, in every spelling vLLM accepts.

vLLM's parser takes `--flag value`, `--flag=value`, underscores for dashes, unambiguous abbreviations, short options
(`-tp 2`, `-tp=2`), `--no-`/`--disable-` for booleans and dotted keys into JSON flags (`--speculative-config.method`).
Of a repeated flag the last one counts, so an unchecked argument would win over the recipe.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

#: Flag to the field that owns it.
OWNED: Mapping[str, str] = MappingProxyType(
    {
        "--model": "model.name",
        "--model-tag": "model.name",
        "--served-model-name": "model.servedName",
        "--revision": "model.revision",
        "--max-model-len": "model.contextTokens",
        "--reasoning-parser": "model.reasoningParser",
        "--tensor-parallel-size": "recipe.parallelism.tensor",
        "-tp": "recipe.parallelism.tensor",
        "--pipeline-parallel-size": "recipe.parallelism.pipeline",
        "-pp": "recipe.parallelism.pipeline",
        "--performance-mode": "recipe.preset",
        "--quantization": "recipe.quantization",
        "--quantization-config": "recipe.quantization",
        "-q": "recipe.quantization",
        "--kv-cache-dtype": "recipe.kvCache.dtype",
        "--max-num-seqs": "recipe.batching.maxSequences",
        "--max-num-batched-tokens": "recipe.batching.maxBatchedTokens",
        "--max-num-queued-reqs": "recipe.batching.maxQueuedRequests",
        "--enable-prefix-caching": "recipe.prefixCaching",
        "--speculative-config": "recipe.speculation",
        "--spec-method": "recipe.speculation.method",
        "--spec-model": "recipe.speculation.model",
        "--spec-tokens": "recipe.speculation.tokens",
        "-sc": "recipe.speculation",
        "--shutdown-timeout": "drain.deadlineSeconds",
    }
)
#: Flags that no field owns and that break what the operator relies on.
BREAKING: Mapping[str, str] = MappingProxyType(
    {
        "--host": "probes and routers need the engine on every address of its pod",
        "--port": "probes and routers need the engine on port 8000",
        "--uds": "probes and routers need the engine on port 8000",
        "--api-key": "routers send no key and would get 401; restrict access with a NetworkPolicy",
        "--ssl-keyfile": "routers and probes speak plain HTTP inside the cluster",
        "--ssl-certfile": "routers and probes speak plain HTTP inside the cluster",
        "--root-path": "routers and probes need the engine's usual paths",
        "--config": "a file of flags can override the recipe; list the flags in engine.args",
        "--data-parallel-size": "a replica has accelerator.count GPUs for one engine; raise replicas",
        "-dp": "a replica has accelerator.count GPUs for one engine; raise replicas",
        "--headless": "the engine must answer requests",
        "--nnodes": "a replica is one pod",
    }
)
_DFLASH_OWNED: Mapping[str, str] = MappingProxyType({"--attention-backend": "recipe.speculation.method dflash"})


def refused_args(args: Sequence[str], *, dflash: bool = False) -> list[str]:
    """One sentence for every argument that sets what the recipe or the pool owns."""
    owned = {**OWNED, **_DFLASH_OWNED} if dflash else dict(OWNED)
    sentences = (_refusal(arg, owned) for arg in args)
    return [sentence for sentence in sentences if sentence]


def _refusal(arg: str, owned: Mapping[str, str]) -> str | None:
    if not arg.startswith("-") or _is_number(arg):
        return None
    if arg == "--":
        return "engine.args -- ends the list of flags, and what follows it would be lost; remove it"
    flag = _flag_of(arg, {**owned, **BREAKING})
    if flag is None:
        return None
    if flag in owned:
        return f"engine.args {arg} sets {flag}, which the recipe owns; remove it and use {owned[flag]}"
    return f"engine.args {arg} is refused: {BREAKING[flag]}"


def _flag_of(arg: str, known: Mapping[str, str]) -> str | None:
    """The known flag that vLLM's parser would read `arg` as, or None."""
    name = arg.split("=", 1)[0]
    if not name.startswith("--"):
        return _short_flag(name, known)
    name = name.split(".", 1)[0].replace("_", "-")
    spellings = (name, *(f"--{name.removeprefix(p)}" for p in ("--no-", "--disable-") if name.startswith(p)))
    for spelling in (*spellings, *(s.replace("--", "--enable-", 1) for s in spellings[1:])):
        if spelling in known:
            return spelling
    return next((flag for flag in known if flag.startswith(name)), None)


def _short_flag(name: str, known: Mapping[str, str]) -> str | None:
    short = [flag for flag in known if not flag.startswith("--")]
    if name[:2] == "-q":  # argparse reads -qfp8 as -q fp8
        return "-q"
    return next((flag for flag in short if flag.startswith(name)), None)


def _is_number(arg: str) -> bool:
    return arg.lstrip("-").replace(".", "", 1).isdigit()
