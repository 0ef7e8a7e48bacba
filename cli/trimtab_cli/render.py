"""`trimtab render`: what the operator would make of manifests, without a cluster."""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from trimtab_cli.files import Resources, read_resources, read_shape
from trimtab_crds.inferencepool import InferencePool, Shape
from trimtab_crds.load import SpecInvalid
from trimtab_crds.routingpolicy import RoutingPolicy
from trimtab_operator.core import gpuclaim, nodepools
from trimtab_operator.core.desired import ChildSettings, policy_objects, pool_objects
from trimtab_operator.core.recipe import resolve
from trimtab_operator.core.routerconfig import compile_config, unbudgeted

Manifest = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Rendered:
    """One resource: `flags` follow `vllm serve MODEL`; `reasons` say why it is refused, `dropped` what was left out.

    `preset` is the one that a pool's choices start from, and `preset_why` what made `auto` choose it.
    """

    kind: str
    namespace: str
    name: str
    accepted: bool
    model: str = ""
    flags: tuple[str, ...] = ()
    dropped: tuple[tuple[str, str], ...] = ()
    reasons: tuple[str, ...] = ()
    objects: tuple[Manifest, ...] = ()
    preset: str = ""
    preset_why: str = ""

    def as_dict(self) -> dict[str, Any]:
        """The JSON of `-o json`."""
        return {
            "kind": self.kind,
            "namespace": self.namespace,
            "name": self.name,
            "accepted": self.accepted,
            **({"preset": self.preset, "presetWhy": self.preset_why} if self.preset else {}),
            "flags": list(self.flags),
            "dropped": [{"what": what, "why": why} for what, why in self.dropped],
            "reasons": list(self.reasons),
            "objects": list(self.objects),
        }


def main(argv: Sequence[str]) -> int:
    """Print what the manifests lead to; exit status 1 when one of them is refused."""
    args = _arguments(argv)
    resources = read_resources(args.files)
    if args.shape is not None:
        resources = with_shape(resources, read_shape(args.shape))
    rendered = render(resources, image=args.image)
    if args.output == "json":
        sys.stdout.write(json.dumps([r.as_dict() for r in rendered], indent=2) + "\n")
    elif args.output == "yaml":
        import yaml

        sys.stdout.write(yaml.safe_dump([r.as_dict() for r in rendered], sort_keys=False, width=110))
    else:
        sys.stdout.write("\n".join(_text(r) for r in rendered))
    return 0 if all(r.accepted for r in rendered) else 1


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="trimtab render",
        description="Show the vLLM flags and Kubernetes objects that manifests lead to, or why they are refused. "
        "Exit status: 0 all accepted, 1 one is refused, 2 the files cannot be read.",
        epilog="example: trimtab render -f examples/quickstart -o json",
    )
    parser.add_argument(
        "-f",
        "--filename",
        dest="files",
        metavar="FILE",
        required=True,
        nargs="+",
        action="extend",
        help="file, folder or - for standard input; may be given again",
    )
    parser.add_argument("-o", "--output", choices=("text", "json", "yaml"), default="text", help="default: text")
    parser.add_argument(
        "--shape",
        type=Path,
        metavar="CONFIG.json",
        help="a Hugging Face config.json, or the folder that holds it: the shape of all pools without model.shape",
    )
    image = f"localhost/trimtab:{version('trimtab')}"
    parser.add_argument("--image", default=image, help="router image where a policy names none (default: %(default)s)")
    return parser.parse_args(argv)


def with_shape(resources: Resources, shape: Shape) -> Resources:
    """The same resources; pools that say no shape have this one."""

    def shaped(pool: InferencePool) -> InferencePool:
        model = pool.spec.model
        if model.shape is not None:
            return pool
        spec = pool.spec.model_copy(update={"model": model.model_copy(update={"shape": shape})})
        return pool.model_copy(update={"spec": spec})

    return replace(resources, pools={key: shaped(pool) for key, pool in resources.pools.items()})


def render(resources: Resources, *, image: str) -> list[Rendered]:
    """Pools first, then policies, then what was refused, each in the order of the files."""
    rendered = [_pool(pool) for pool in resources.pools.values()]
    rendered += [_policy(policy, resources, image) for policy in resources.policies.values()]
    for invalid in resources.invalid:
        document = invalid.document
        rendered.append(
            Rendered(document.kind, document.namespace, document.name, accepted=False, reasons=invalid.problems)
        )
    return rendered


def _pool(pool: InferencePool) -> Rendered:
    resolution, no_nodes = resolve(pool), nodepools.refusals(pool)
    accepted = resolution.accepted and not no_nodes
    objects = [*pool_objects(pool, resolution, replicas=pool.spec.replicas)] if accepted else []
    if accepted:
        before = (nodepools.node_object(pool), gpuclaim.claim_template(pool))
        objects = [*filter(None, before), *objects]
    return Rendered(
        pool.kind,
        pool.metadata.namespace,
        pool.metadata.name,
        accepted=accepted,
        model=pool.spec.model.name,
        flags=resolution.flags,
        dropped=tuple((drop.what, drop.why) for drop in resolution.dropped),
        reasons=(*resolution.reasons, *no_nodes),
        preset=resolution.preset,
        preset_why=resolution.preset_why,
        objects=tuple(objects),
    )


def _policy(policy: RoutingPolicy, resources: Resources, image: str) -> Rendered:
    """A policy whose pools are in other files is not refused: its objects are left out, and `dropped` says so."""
    identity = (policy.kind, policy.metadata.namespace, policy.metadata.name)
    pools = resources.pools_of(policy.metadata.namespace)
    absent = [name for name in policy.pool_names if name not in pools]
    refused = [i.document.name for i in resources.invalid if i.document.kind == "InferencePool"]
    broken = [name for name in absent if name in refused]
    if broken:
        return Rendered(*identity, accepted=False, reasons=(f"refused pools: {', '.join(broken)}; mend them first",))
    if absent and not pools:
        why = f"the pools {', '.join(absent)} are not in the given files; give theirs too"
        return Rendered(*identity, accepted=True, dropped=(("objects", why),))
    try:
        config = compile_config(policy, pools)
        reasons = tuple(unbudgeted(policy, pools))
    except SpecInvalid as error:
        reasons = error.problems
    if reasons:
        return Rendered(*identity, accepted=False, reasons=reasons)
    objects = policy_objects(policy, config, ChildSettings(router_image=image), pools)
    return Rendered(*identity, accepted=True, objects=tuple(objects))


def _text(rendered: Rendered) -> str:
    return "\n".join(_lines(rendered)) + "\n"


def _lines(rendered: Rendered) -> Iterator[str]:
    verdict = "accepted" if rendered.accepted else "REFUSED"
    yield f"{rendered.kind} {rendered.namespace}/{rendered.name}: {verdict}"
    if rendered.preset_why:
        yield f"  preset {rendered.preset}: {rendered.preset_why}"
    for reason in rendered.reasons:
        yield f"  {reason}"
    if rendered.flags:
        yield f"  vllm serve {rendered.model} \\"
        yield " \\\n".join(f"    {words}" for words in _grouped(rendered.flags))
    for what, why in rendered.dropped:
        yield f"  left out: {what}: {why}"
    for manifest in rendered.objects:
        yield f"  makes {manifest['kind']} {manifest['metadata']['name']}"


def _grouped(flags: Sequence[str]) -> Iterator[str]:
    """A flag and its value on one line, quoted for a shell."""
    import shlex

    line: list[str] = []
    for word in flags:
        if word.startswith("--") and line:
            yield shlex.join(line)
            line = []
        line.append(word)
    if line:
        yield shlex.join(line)
