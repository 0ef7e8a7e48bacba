"""Manifests from files, folders or standard input, with errors that name the file and the line."""

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from trimtab_cli.errors import UsageError
from trimtab_crds.inferencepool import InferencePool, Shape
from trimtab_crds.load import SpecInvalid, load, problems_of
from trimtab_crds.routingpolicy import RoutingPolicy
from trimtab_crds.specshape import spec_shape

SUFFIXES = (".yaml", ".yml", ".json")
_OURS = ("InferencePool", "RoutingPolicy")

Manifest = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Document:
    """One manifest and where it stands, as `pools.yaml, line 12`."""

    where: str
    manifest: Manifest

    @property
    def kind(self) -> str:
        """Its kind, empty when absent."""
        return str(self.manifest.get("kind") or "")

    @property
    def name(self) -> str:
        """`metadata.name`, empty when absent."""
        return str(_metadata(self.manifest).get("name") or "")

    @property
    def namespace(self) -> str:
        """`metadata.namespace`, or `default`."""
        return str(_metadata(self.manifest).get("namespace") or "default")


@dataclass(frozen=True, slots=True)
class Invalid:
    """A document whose spec is refused, with one sentence per field."""

    document: Document
    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Resources:
    """What the files describe: pools and policies by (namespace, name), and what was refused."""

    pools: dict[tuple[str, str], InferencePool] = field(default_factory=dict)
    policies: dict[tuple[str, str], RoutingPolicy] = field(default_factory=dict)
    invalid: list[Invalid] = field(default_factory=list)

    def pools_of(self, namespace: str) -> dict[str, InferencePool]:
        """The pools of one namespace by name: those that a policy there can refer to."""
        return {name: pool for (space, name), pool in self.pools.items() if space == namespace}


def read_resources(paths: Sequence[str]) -> Resources:
    """Everything that the paths hold; UsageError for what is not a manifest of ours or is there twice."""
    resources = Resources()
    seen: dict[tuple[str, str, str], str] = {}
    for document in read_documents(paths):
        identity = (document.kind, document.namespace, document.name)
        if identity in seen:
            raise UsageError(
                f"{document.where}: {document.kind} {document.name} is also in {seen[identity]}; remove one of them"
            )
        seen[identity] = document.where
        _add(resources, document)
    return resources


def _add(resources: Resources, document: Document) -> None:
    key = (document.namespace, document.name)
    try:
        resource = load(document.manifest)
    except SpecInvalid as error:
        resources.invalid.append(Invalid(document, error.problems))
        return
    if isinstance(resource, InferencePool):
        resources.pools[key] = resource
    else:
        resources.policies[key] = resource


def read_valid_resources(paths: Sequence[str]) -> Resources:
    """As `read_resources`, but the first refused document is a UsageError."""
    resources = read_resources(paths)
    for invalid in resources.invalid:
        document = invalid.document
        raise UsageError(f"{document.where}: {document.kind} {document.name}: {'; '.join(invalid.problems)}")
    return resources


def only_policy(resources: Resources, paths: Sequence[str]) -> RoutingPolicy:
    """The one policy of the files; UsageError when there is none or more than one."""
    policies = list(resources.policies.values())
    given = ", ".join(paths)
    if not policies:
        raise UsageError(f"{given}: no RoutingPolicy; add one, or name its file with -f")
    if len(policies) > 1:
        names = ", ".join(p.metadata.name for p in policies)
        raise UsageError(f"{given}: {len(policies)} RoutingPolicies ({names}), one is needed; name the file of one")
    return policies[0]


def read_documents(paths: Sequence[str]) -> list[Document]:
    """The documents of all paths in their order; `-` is standard input, a folder all its YAML and JSON files."""
    documents = [d for path in paths for source, text in _texts(path) for d in _parse(source, text)]
    if not documents:
        raise UsageError(f"{', '.join(paths)}: no manifests in it; give files with InferencePools or RoutingPolicies")
    return documents


def _texts(path: str) -> Iterator[tuple[str, str]]:
    if path == "-":
        yield "standard input", sys.stdin.read()
        return
    place = Path(path)
    if place.is_dir():
        files = sorted(f for f in place.iterdir() if f.suffix in SUFFIXES)
        if not files:
            raise UsageError(f"{path}: the folder has no {', '.join(SUFFIXES)} file; name another")
        for file in files:
            yield str(file), read_text(file)
    else:
        yield path, read_text(place)


def read_text(path: Path) -> str:
    """A file's text; UsageError when it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file or folder; correct the path") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path}: not a text in UTF-8; give a YAML or JSON file") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None


def read_shape(path: Path) -> Shape:
    """The shape that a Hugging Face `config.json` describes; UsageError for what is none."""
    file = path / "config.json" if path.is_dir() else path
    try:
        config = json.loads(read_text(file))
    except json.JSONDecodeError as error:
        raise UsageError(f"{file}, line {error.lineno}: not JSON: {error.msg}; give a model's config.json") from None
    if not isinstance(config, dict):
        raise UsageError(f"{file}: {_short(config)} is not an object; give a model's config.json")
    try:
        return spec_shape(config)
    except ValidationError as error:
        raise UsageError(f"{file}: {'; '.join(problems_of(error))}") from None
    except ValueError as error:
        raise UsageError(f"{file}: {error}") from None


class _Loader(yaml.SafeLoader):
    """YAML that refuses a key given twice, which PyYAML would drop silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[object] = set()
        for key_node, _ in node.value:
            if isinstance(key_node, yaml.ScalarNode) and key_node.tag != "tag:yaml.org,2002:merge":
                if key_node.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {key_node.value!r} is there twice", key_node.start_mark
                    )
                seen.add(key_node.value)
        return super().construct_mapping(node, deep)


def _parse(source: str, text: str) -> Iterator[Document]:
    """The documents of one text; `kind: List` counts as its items."""
    try:
        yield from _read(source, _Loader(text))
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise UsageError(f"{source}, line {line}: not YAML: {error.problem or error.context}; correct it") from None
    except yaml.YAMLError as error:
        raise UsageError(f"{source}: not YAML: {' '.join(str(error).split())}; correct it") from None


def _read(source: str, loader: _Loader) -> Iterator[Document]:
    try:
        while loader.check_node() and (node := loader.get_node()) is not None:
            where = f"{source}, line {node.start_mark.line + 1}"
            manifest = loader.construct_document(node)
            if manifest is not None:
                yield from _checked(where, manifest)
    finally:
        loader.dispose()


def _checked(where: str, manifest: Any) -> Iterator[Document]:
    if not isinstance(manifest, dict):
        raise UsageError(f"{where}: {_short(manifest)} is not a manifest; it needs apiVersion, kind, metadata and spec")
    if manifest.get("kind") == "List" and isinstance(manifest.get("items"), list):
        for item in manifest["items"]:
            yield from _checked(where, item)
        return
    document = Document(where, manifest)
    if document.kind not in _OURS:
        kinds = " and ".join(_OURS)
        raise UsageError(
            f"{where}: kind {document.kind or 'missing'} is not one that Trimtab reads; {kinds} are: "
            "put others into another folder"
        )
    if not document.name:
        raise UsageError(f"{where}: {document.kind} has no metadata.name; set it")
    yield document


def _metadata(manifest: Manifest) -> Manifest:
    metadata = manifest.get("metadata")
    return metadata if isinstance(metadata, dict) else {}


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
