"""Which rows teach and which are judged: two folders, or five folds by question when there is one."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from trimtab_classifier.examples import bucket
from trimtab_classifier.sources import Row, rows

Rows = NDArray[np.intp]
FOLDS: Final = 5


@dataclass(frozen=True, slots=True)
class Folders:
    """Where rows come from; without a test folder the rows are judged in folds."""

    train: Path
    test: Path | None = None


@dataclass(frozen=True, slots=True)
class Split:
    """Rows to learn from and rows to judge, disjoint."""

    learn: Rows
    judge: Rows


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of one set, and the splits that judge every judged row once."""

    rows: list[Row]
    texts: list[str]
    splits: list[Split]

    def column(self, read: Callable[[Row], Any]) -> NDArray[Any]:
        """One value a row."""
        return np.array([read(row) for row in self.rows])


def folds(texts: Sequence[str], within: Rows, count: int = FOLDS, salt: str = "fold") -> list[Split]:
    """Splits of the rows `within`; copies of a text stay together. Empty folds are left out."""
    place = np.array([bucket(texts[row], count, salt) for row in within], np.intp)
    found = [Split(within[place != k], within[place == k]) for k in range(count)]
    return [split for split in found if len(split.learn) and len(split.judge)]


def _read(folder: Path, files: Sequence[str]) -> Iterator[Row]:
    for file in files:
        if (folder / file).is_file():
            yield from rows(folder / file)


def load(folders: Folders, files: Sequence[str], text: str) -> Table | None:
    """The table, or None when a folder has none of the files."""
    learn = list(_read(folders.train, files))
    judge = list(_read(folders.test, files)) if folders.test else []
    if not learn or (folders.test and not judge):
        return None
    everything = learn + judge
    texts = [str(row[text]) for row in everything]
    return Table(everything, texts, divide(texts, len(learn) if folders.test else None))


def divide(texts: Sequence[str], learned: int | None) -> list[Split]:
    """Five folds; or, when the first `learned` rows are those to learn from, the others judged in one split."""
    if learned is None:
        return folds(texts, np.arange(len(texts)))
    seen = {bucket(text, 1 << 62) for text in texts[:learned]}
    # A question that both folders hold would be judged by what was learned from itself.
    fresh = [row for row in range(learned, len(texts)) if bucket(texts[row], 1 << 62) not in seen]
    return [Split(np.arange(learned), np.array(fresh, np.intp))]
