"""The recipes that are held against the real vLLM: models x accelerators x presets, then overrides, then mixtures.

A pool's flags are asked for whether Trimtab accepts the pool or not, so that both kinds of fault show: what Trimtab
accepts and vLLM refuses, and what Trimtab refuses without need.
"""

import random
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from support.manifests import Manifest, changed, pool_manifest
from support.modelshapes import DRAFTS, folder, heads, models, spec_shape
from support.vllmchecker import Question
from testcluster import vllmnext
from trimtab_crds.accelerators import CATALOGUE
from trimtab_crds.inferencepool import InferencePool
from trimtab_crds.recipespec import Preset, Quantization
from trimtab_operator.core import nodeflags
from trimtab_operator.core.choices import choose
from trimtab_operator.core.recipe import Resolution, flags_of, resolve

#: One of every generation that vLLM treats alike, with less and with more than the 70 GiB where its defaults change.
ACCELERATORS = (
    "nvidia-t4-16gb",
    "nvidia-a100-80gb",
    "nvidia-l4-24gb",
    "nvidia-h100-80gb",
    "nvidia-h200-141gb",
    "nvidia-b200-180gb",
    "nvidia-b300-288gb",
    "nvidia-rtx-5090-32gb",
    "nvidia-rtx-pro-6000-96gb",
)
#: Overrides are tried on fewer: one without bfloat16, one small, one of each of the two generations with fp8 attention.
OVERRIDE_ACCELERATORS = ("nvidia-t4-16gb", "nvidia-l4-24gb", "nvidia-h100-80gb", "nvidia-b200-180gb")
COUNTS = (1, 8)
MIXTURES = 1200
OWN_IMAGE = "registry.example.com/vllm-with-arctic-inference:1"

Changes = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Case:
    """One pool: what Trimtab says of it, and what to ask vLLM."""

    id: str
    name: str
    resolution: Resolution
    question: Question


def _speculation(method: str, **more: object) -> Changes:
    return {"spec.recipe.speculation": {"method": method, **more}}


def _batching(**fields: int) -> Changes:
    return {"spec.recipe.batching": fields}


def _parallel(tensor: int, pipeline: int, *, data: int = 1, prefillContext: int = 1, **more: int) -> Changes:  # noqa: N803
    sizes = {"tensor": tensor, "pipeline": pipeline, "data": data, "prefillContext": prefillContext}
    return {
        "spec.recipe.parallelism": sizes | more,
        "spec.accelerator.count": tensor * pipeline * data * prefillContext,
    }


def _nodes(nodes: int, changes: Changes, count: int = 0) -> Changes:
    return {**changes, "spec.accelerator.nodes": nodes, **({"spec.accelerator.count": count} if count else {})}


FADING = [
    {"from": 1, "to": 16, "tokens": 3},
    {"from": 17, "to": 64, "tokens": 1},
    {"from": 65, "to": 8192, "tokens": 0},
]

#: Without a draft; those with one depend on the model (`_drafted`).
SPECULATIONS: Mapping[str, Changes] = {
    "none": _speculation("none"),
    "ngram": _speculation("ngram"),
    "ngram 1": _speculation("ngram", tokens=1),
    "ngram 64": _speculation("ngram", tokens=64),
    "suffix": _speculation("suffix"),
    "suffix, own image": _speculation("suffix") | {"spec.engine.image": OWN_IMAGE},
    "mtp": _speculation("mtp"),
    "mtp 3": _speculation("mtp", tokens=3),
}
QUANTIZATIONS: Mapping[str, Changes] = {f"{q}": {"spec.recipe.quantization": q.value} for q in Quantization}
KV_DTYPES: Mapping[str, Changes] = {
    f"kv {dtype}": {"spec.recipe.kvCache": {"dtype": dtype}} for dtype in ("auto", "fp8", "fp8_e5m2")
}
PARALLELISM: Mapping[str, Changes] = {
    f"tensor {t} pipeline {p}": _parallel(t, p)
    for t, p in ((1, 1), (3, 1), (5, 1), (6, 1), (4, 1), (16, 1), (64, 1), (1, 2), (2, 2), (4, 2), (1, 8), (1, 64))
}
BATCHING: Mapping[str, Changes] = {
    "1 sequence": _batching(maxSequences=1),
    "8192 sequences": _batching(maxSequences=8192),
    "1 token": _batching(maxBatchedTokens=1),
    "64 tokens": _batching(maxBatchedTokens=64),
    "1M tokens": _batching(maxBatchedTokens=1_048_576),
    "as many sequences as tokens": _batching(maxSequences=512, maxBatchedTokens=512),
    "a queue of 1": _batching(maxQueuedRequests=1),
}
OTHERS: Mapping[str, Changes] = {
    "no prefix caching": {"spec.recipe.prefixCaching": False},
    "prefix caching": {"spec.recipe.prefixCaching": True},
    "context 1": {"spec.model.contextTokens": 1},
    "context 4k": {"spec.model.contextTokens": 4096},
    "context 1M": {"spec.model.contextTokens": 1_048_576},
    "reasoning parser": {"spec.model.reasoningParser": "qwen3"},
    "a parser that vLLM lacks": {"spec.model.reasoningParser": "nosuchparser"},
    "revision": {"spec.model.revision": "main"},
    "extra arguments": {"spec.engine.args": ["--enable-request-id-headers", "--stream-interval=2"]},
    "version 0.33": {"spec.engine.version": "0.33.0"},
}
#: vLLM's parser says nothing but this, so it is not mixed with others.
UNKNOWN_ARGUMENT: Mapping[str, Changes] = {
    "an argument that vLLM lacks": {"spec.engine.args": ["--no-such-flag"]},
}
CONTEXT_AND_EXPERTS: Mapping[str, Changes] = {
    "experts": _parallel(2, 1, expert=True),
    "data 2": _parallel(1, 1, data=2),
    "data 2, experts": _parallel(2, 1, data=2, expert=True),
    "prefill context 2": _parallel(2, 1, prefillContext=2),
    "prefill context 2, decode context 2": _parallel(2, 1, prefillContext=2, decodeContext=2),
    "prefill context 2, decode context 3": _parallel(2, 1, prefillContext=2, decodeContext=3),
    "decode context 2 of 8": _parallel(8, 1, decodeContext=2),
    "decode context 2 of 16": _parallel(16, 1, decodeContext=2),
    "decode context 3 of 8": _parallel(8, 1, decodeContext=3),
}
EXTRAS: Mapping[str, Changes] = {
    "prompts in one piece": _batching(chunkedPrefill=False),
    "prompts in one piece, small steps": _batching(chunkedPrefill=False, maxBatchedTokens=2048),
    "chunks of 512": _batching(longPrefillThreshold=512),
    "chunks of 1M": _batching(longPrefillThreshold=1_048_576),
    "offload": {"spec.recipe.kvCache": {"offloadGib": 16}},
    "prompts for others": {"spec.recipe.disaggregation": {"role": "Prefill"}},
    "prompts of others": {"spec.recipe.disaggregation": {"role": "Decode"}},
    "prompts of others, offload": {
        "spec.recipe.disaggregation": {"role": "Decode"},
        "spec.recipe.kvCache": {"offloadGib": 16},
    },
    "prompts for others, split caches": {
        "spec.recipe.disaggregation": {"role": "Prefill"},
        **_parallel(8, 1, decodeContext=2),
    },
    "prompts for others, whole split": {
        "spec.recipe.disaggregation": {"role": "Prefill"},
        **_parallel(8, 1, decodeContext=8),
    },
    "prompts for others, data 2": {
        "spec.recipe.disaggregation": {"role": "Prefill"},
        **_parallel(2, 1, data=2, expert=True),
    },
    "prompts for others, guesses": {
        "spec.recipe.disaggregation": {"role": "Prefill"},
        **_speculation("mtp"),
    },
    "priority": {"spec.recipe.scheduling": "priority"},
    "sleep": {"spec.recipe.sleepMode": True, "spec.engine.env": [{"name": "VLLM_SERVER_DEV_MODE", "value": "1"}]},
    "adapters": {"spec.recipe.lora": {"modules": [{"name": "a", "path": "/a"}], "maxRank": 64}},
    "fading guesses": {"spec.recipe.speculation": {"method": "ngram", "tokensByBatchSize": FADING}},
    "fading mtp": {"spec.recipe.speculation": {"method": "mtp", "tokensByBatchSize": FADING}},
}
OVERRIDES = (SPECULATIONS, QUANTIZATIONS, KV_DTYPES, PARALLELISM, BATCHING, OTHERS, CONTEXT_AND_EXPERTS, EXTRAS)
#: Replicas on several nodes: asked as the node that answers and as the last of the others.
NODES: Mapping[str, Changes] = {
    "2 nodes": _nodes(2, {}, count=8),
    "2 nodes of one GPU": _nodes(2, {}, count=2),
    "8 nodes of 8 GPUs": _nodes(8, {}, count=64),
    "3 nodes": _nodes(3, {}, count=12),
    "tensor 4 over 2 nodes": _nodes(2, _parallel(4, 1)),
    "tensor 2 pipeline 4 on 2 nodes": _nodes(2, _parallel(2, 4)),
    "data 2 on 2 nodes": _nodes(2, _parallel(2, 1, data=2, expert=True)),
    "data 2 of 2 nodes each": _nodes(4, _parallel(4, 1, data=2, expert=True)),
    "data 4 on 2 nodes": _nodes(2, _parallel(2, 1, data=4, expert=True)),
    "data 3 on 2 nodes": _nodes(2, _parallel(2, 1, data=3, expert=True)),
    "prefill context 2 over 2 nodes": _nodes(2, _parallel(2, 1, prefillContext=2)),
    "decode context 2 of 16 over 2 nodes": _nodes(2, _parallel(16, 1, decodeContext=2)),
    "mtp on 2 nodes": _nodes(2, _speculation("mtp"), count=8),
    "ngram on 2 nodes": _nodes(2, _speculation("ngram"), count=8),
    "offload on 2 nodes": _nodes(2, {"spec.recipe.kvCache": {"offloadGib": 16}}, count=8),
    "adapters on 2 nodes": _nodes(
        2, {"spec.recipe.lora": {"modules": [{"name": "a", "path": "/a"}], "maxRank": 64}}, count=8
    ),
    "prompts for others on 2 nodes": _nodes(2, {"spec.recipe.disaggregation": {"role": "Prefill"}}, count=8),
    "ray on 2 nodes": _nodes(2, {"spec.engine.args": ["--distributed-executor-backend", "ray"]}, count=8),
    "ray ranks on 2 nodes": _nodes(2, {"spec.engine.args": ["--data-parallel-backend", "ray"]}, count=8),
}


def cases() -> list[Case]:
    """All of them, in a fixed order."""
    return [*_presets(), *_overrides(), *_mixtures(), *_on_nodes()]


def _presets() -> Iterator[Case]:
    for model in models():
        for accelerator in ACCELERATORS:
            for count in COUNTS:
                for preset in Preset:
                    yield case(model, accelerator, count=count, name=f"{preset}", changes=_preset(preset))


def _preset(preset: Preset) -> Changes:
    return {"spec.recipe.preset": preset.value}


def _overrides() -> Iterator[Case]:
    for model in models():
        for accelerator in OVERRIDE_ACCELERATORS:
            for group in (*OVERRIDES, UNKNOWN_ARGUMENT, _drafted(model)):
                for name, changes in group.items():
                    yield case(model, accelerator, count=1, name=name, changes=changes)


def _drafted(model: str) -> Mapping[str, Changes]:
    return {
        f"{method} {tokens or ''}".strip(): _speculation(
            method,
            model=str(drafts[model]),
            draftAttentionHeads=heads(drafts[model]),
            **({"tokens": tokens} if tokens else {}),
        )
        for method, drafts in DRAFTS.items()
        if model in drafts
        for tokens in (None, 1, 7, 64)
    }


def _mixtures() -> Iterator[Case]:
    """Several overrides at once: faults hide where two choices meet. The same mixtures every time."""
    chance = random.Random(20)
    for _ in range(MIXTURES):
        model = chance.choice(models())
        groups = [*OVERRIDES, _drafted(model) or SPECULATIONS]
        chosen = [chance.choice(list(group.items())) for group in chance.sample(groups, chance.randint(2, 4))]
        preset = chance.choice(list(Preset))
        names, changes = [f"{preset}"], _preset(preset)
        for name, more in chosen:
            names.append(name)
            changes |= more
        accelerator, count = chance.choice(ACCELERATORS), chance.choice(COUNTS)
        yield case(model, accelerator, count=count, name=" + ".join(names), changes=changes)


def _on_nodes() -> Iterator[Case]:
    for model in models():
        for accelerator in ("nvidia-l4-24gb", "nvidia-h100-80gb"):
            for name, changes in NODES.items():
                yield from (_of_node(model, accelerator, name, changes, leads=leads) for leads in (True, False))
        for preset in Preset:
            changes = _nodes(2, _preset(preset), count=16)
            yield _of_node(model, "nvidia-h100-80gb", f"{preset} on 2 nodes", changes, leads=True)


def _of_node(model: str, accelerator: str, name: str, changes: Changes, *, leads: bool) -> Case:
    """The case of one node of a replica, with an address and a rank for the variables of its container."""
    whole, nodes = case(model, accelerator, count=1, name=name, changes=changes), changes["spec.accelerator.nodes"]
    told = nodeflags.of_leader() if leads else nodeflags.of_worker(rank=str(nodes - 1))
    argv = (*whole.question.argv, *(word.replace(nodeflags.LEADER_ADDRESS, "192.0.2.1") for word in told))
    question = replace(whole.question, argv=argv, gpus=whole.question.gpus // nodes)
    return replace(whole, id=f"{whole.id}, {'leader' if leads else 'worker'}", question=question)


def case(model: str, accelerator: str, *, count: int, name: str, changes: Changes) -> Case:
    """The case of one pool."""
    manifest = _manifest(model, accelerator, count, changes)
    pool = InferencePool.model_validate(manifest)
    gpu = CATALOGUE[accelerator]
    question = Question(
        model_dir=folder(model),
        argv=flags_of(pool, choose(pool, gpu)[0]),
        accelerator=gpu,
        gpus=pool.spec.accelerator.count,
        packages=("arctic_inference",) if pool.spec.engine.image == OWN_IMAGE else (),
    )
    gpus = pool.spec.accelerator.count
    return Case(f"{model} on {gpus} x {accelerator}: {name}", name, resolve(pool), question)


def _engine() -> Changes:
    version = vllmnext.asked()
    return {"version": version} if version else {}


def _manifest(model: str, accelerator: str, count: int, changes: Changes) -> Manifest:
    base = pool_manifest("low", spec__model={"name": model, "shape": spec_shape(model)}, spec__engine=_engine())
    return changed(base, {"spec.accelerator": {"name": accelerator, "count": count}, **changes})


def kind_of(reason: str) -> str:
    """A reason without its figures and names, for counting."""
    return re.sub(r"(?<=[ (])[\w./-]*\d[\w./-]*", "N", reason).split(";")[0]
