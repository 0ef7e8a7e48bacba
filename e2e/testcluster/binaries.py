"""Finds the programs of the test cluster: given folders first, then the cache, then a build."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from testcluster.build import PART_OF, PARTS, build_parts, part_folder
from testcluster.errors import UnavailableError
from testcluster.progress import Progress

GIVEN_VARIABLES = ("TRIMTAB_CONTROLPLANE_BIN", "KUBEBUILDER_ASSETS")


@dataclass(frozen=True, slots=True)
class Binaries:
    """Programs by name, each looked for in the folders in their order."""

    folders: tuple[Path, ...]

    def find(self, name: str) -> Path | None:
        """The program's path, or None where no folder has it."""
        return next((f / name for f in self.folders if (f / name).exists()), None)

    def path(self, name: str) -> Path:
        """The program's path; UnavailableError where no folder has it."""
        found = self.find(name)
        if not found:
            raise UnavailableError(f"{name} is in none of {', '.join(map(str, self.folders))}")
        return found

    @property
    def search_path(self) -> str:
        """The folders for an environment's PATH."""
        return os.pathsep.join(map(str, self.folders))


def locate(parts: Iterable[str], progress: Progress, environment: Mapping[str, str] | None = None) -> Binaries:
    """The programs of `parts`; what neither a given folder nor the cache has is built now."""
    parts = tuple(parts)
    given = given_folders(os.environ if environment is None else environment)
    needed = sorted({PART_OF[n] for n in PART_OF if PART_OF[n] in parts and not Binaries(given).find(n)})
    build_parts(needed, progress)
    cached = [part_folder(PARTS[name]) for name in needed]
    for folder in cached:
        os.utime(folder)  # says when it was last used
    return Binaries((*given, *cached))


def given_folders(environment: Mapping[str, str]) -> tuple[Path, ...]:
    """The folders that the environment names; UnavailableError for one that is not there."""
    folders = []
    for variable in GIVEN_VARIABLES:
        if value := environment.get(variable):
            folder = Path(value).expanduser()
            if not folder.is_dir():
                raise UnavailableError(f"{variable}={value}: no such folder; unset it or name one with programs")
            folders.append(folder.resolve())
    return tuple(folders)
