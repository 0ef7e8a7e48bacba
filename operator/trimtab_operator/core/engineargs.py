"""`engine.args` may add to a recipe but never override it: which flags are owned, in every spelling vLLM accepts.

vLLM's parser takes `--flag value`, `--flag=value`, underscores for dashes, unambiguous abbreviations, short options
(`-tp 2`, `-tp=2`), `--no-`/`--disable-` for booleans and dotted keys into JSON flags (`--speculative-config.method`).
Of a repeated flag the last one counts, so an unchecked argument would win over the recipe.
"""

from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches
from types import MappingProxyType

from trimtab_crds.vllmflags import flags_of

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
        "--data-parallel-size": "recipe.parallelism.data",
        "-dp": "recipe.parallelism.data",
        "--prefill-context-parallel-size": "recipe.parallelism.prefillContext",
        "-pcp": "recipe.parallelism.prefillContext",
        "--nnodes": "accelerator.nodes",
        "-n": "accelerator.nodes",
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
        "--api-key": "routers send no key and would get 401; restrict access with network.isolated",
        "--ssl-keyfile": "routers and probes speak plain HTTP inside the cluster",
        "--ssl-certfile": "routers and probes speak plain HTTP inside the cluster",
        "--root-path": "routers and probes need the engine's usual paths",
        "--config": "a file of flags can override the recipe; list the flags in engine.args",
        "--headless": "the operator sets it on the nodes of a replica that answer no requests",
    }
)
#: Flags that a field owns where the recipe sets it; engine.args may set them elsewhere.
OWNED_WHERE_SET: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "recipe.speculation.method dflash": {"--attention-backend": ""},
        "accelerator.nodes": {"--node-rank": "", "-r": "", "--master-addr": ""},
        "recipe.parallelism": {
            "--enable-expert-parallel": ".expert",
            "-ep": ".expert",
            "--decode-context-parallel-size": ".decodeContext",
            "-dcp": ".decodeContext",
        },
        "recipe.batching": {
            "--enable-chunked-prefill": ".chunkedPrefill",
            "--long-prefill-token-threshold": ".longPrefillThreshold",
        },
        "recipe.kvCache": {"--kv-offloading-size": ".offloadGib", "--kv-offloading-backend": ".offloadBackend"},
        "recipe.disaggregation": {"--kv-transfer-config": ""},
        "recipe.scheduling": {"--scheduling-policy": ""},
        "recipe.sleepMode": {"--enable-sleep-mode": ""},
        "recipe.lora": {
            "--enable-lora": "",
            "--lora-modules": ".modules",
            "--max-loras": ".modules",
            "--max-lora-rank": ".maxRank",
        },
    }
)
#: Flags that break what the nodes of one replica rely on, where it has several.
BREAKING_ON_NODES: Mapping[str, str] = MappingProxyType(
    {
        "--distributed-executor-backend": "nodes of one replica work together by mp, which vLLM chooses by itself",
        **dict.fromkeys(
            ("--api-server-count", "-asc"),
            "it is for all nodes of a replica, and those that answer no requests refuse it",
        ),
        **dict.fromkeys(
            (
                "--data-parallel-address",
                "--data-parallel-backend",
                "--data-parallel-external-lb",
                "--data-parallel-hybrid-lb",
                "--data-parallel-multi-port-external-lb",
                "--data-parallel-rank",
                "--data-parallel-size-local",
                "--data-parallel-start-rank",
            ),
            "it is for all nodes of a replica, and ranks follow from accelerator.nodes and recipe.parallelism.data",
        ),
    }
)


def refused_args(args: Sequence[str], fields: Collection[str] = ()) -> list[str]:
    """One sentence for every argument that sets what the recipe or the pool owns; `fields` are those it sets."""
    owned, breaking = dict(OWNED), dict(BREAKING)
    for name in fields:
        owned |= {flag: name + part for flag, part in OWNED_WHERE_SET[name].items()}
    if "accelerator.nodes" in fields:
        breaking |= BREAKING_ON_NODES
    sentences = (_refusal(arg, owned, breaking) for arg in args)
    return [sentence for sentence in sentences if sentence]


def unknown_args(args: Sequence[str], version: str) -> list[str]:
    """One sentence for every flag that vLLM does not have; none for versions whose flags are not listed."""
    listed = flags_of(version)
    if listed is None:
        return []
    flags = [arg for arg in args if arg.startswith("-") and arg != "--" and not _is_number(arg)]
    return [
        f"engine.args {arg} is no flag of vLLM {listed.version}; {_nearest(arg, listed.names)}"
        for arg in flags
        if not _is_known(arg, listed.names)
    ]


def _is_known(arg: str, names: Collection[str]) -> bool:
    """Also of abbreviations, dotted keys into JSON flags, and a short option with its value (`-O3`, `-tp2`)."""
    name = _plain(arg)
    if name.startswith("--"):
        return any(known.startswith(name) for known in names)
    return name.startswith("-O") or any(name.startswith(known) for known in names if not known.startswith("--"))


def _nearest(arg: str, names: Collection[str]) -> str:
    near = get_close_matches(_plain(arg), sorted(names), n=1)
    return f"use {near[0]} or remove it" if near else "remove it"


def _plain(arg: str) -> str:
    """The flag's name alone, spelled with dashes."""
    return arg.split("=", 1)[0].split(".", 1)[0].replace("_", "-")


def _refusal(arg: str, owned: Mapping[str, str], breaking: Mapping[str, str]) -> str | None:
    if not arg.startswith("-") or _is_number(arg):
        return None
    if arg == "--":
        return "engine.args -- ends the list of flags, and what follows it would be lost; remove it"
    flag = _flag_of(arg, {**owned, **breaking})
    if flag is None:
        return None
    if flag in owned:
        return f"engine.args {arg} sets {flag}, which the recipe owns; remove it and use {owned[flag]}"
    return f"engine.args {arg} is refused: {breaking[flag]}"


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
