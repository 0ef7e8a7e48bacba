"""Images without a registry or Docker: layers as tar files, and the archive that containerd imports."""

import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
PATH_VARIABLE = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class Layer:
    """One tar file of an image and its sha256, which names it."""

    path: Path
    digest: str


@dataclass(frozen=True, slots=True)
class Image:
    """An image's name, its layers from the lowest up, and its config as the OCI image specification has it."""

    name: str
    layers: tuple[Layer, ...]
    config: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of_program(cls, name: str, program: Path, tar_path: Path) -> "Image":
        """An image that is one static program; `tar_path` is where its layer is written."""
        content = program.read_bytes()
        info = tarfile.TarInfo(program.name)
        info.size, info.mode = len(content), 0o755
        with tarfile.open(tar_path, "w") as tar:
            tar.addfile(info, io.BytesIO(content))
        return cls(name, (as_layer(tar_path),), {"Entrypoint": [f"/{program.name}"]})


def as_layer(path: Path) -> Layer:
    """A tar file as a layer."""
    with path.open("rb") as file:
        return Layer(path, hashlib.file_digest(file, "sha256").hexdigest())


def pack(folder: Path, tar_path: Path) -> Layer:
    """A folder as a layer: all files root's, whoever owns them here."""

    def owned_by_root(info: tarfile.TarInfo) -> tarfile.TarInfo:
        info.uid = info.gid = 0
        info.uname = info.gname = "root"
        return info

    new = tar_path.with_suffix(".new")
    with tarfile.open(new, "w") as tar:
        for path in sorted(folder.iterdir()):
            tar.add(path, path.name, filter=owned_by_root)
    new.replace(tar_path)
    return as_layer(tar_path)


def write_archive(image: Image, archive: Path) -> None:
    """The image as a docker-archive, which `ctr images import` and `docker load` read."""
    config = {
        "architecture": ARCHITECTURES.get(platform.machine(), platform.machine()),
        "os": "linux",
        "config": {"Env": [PATH_VARIABLE], **image.config},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer.digest}" for layer in image.layers]},
    }
    names = [f"{layer.digest}.tar" for layer in image.layers]
    manifest = [{"Config": "config.json", "RepoTags": [image.name], "Layers": names}]
    with tarfile.open(archive, "w") as tar:
        for layer, name in zip(image.layers, names, strict=True):
            tar.add(layer.path, name)
        for name, content in (("config.json", config), ("manifest.json", manifest)):
            data = json.dumps(content).encode()
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
