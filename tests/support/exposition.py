"""Reads Prometheus text exposition in tests."""

from prometheus_client.parser import text_string_to_metric_families


class Exposition:
    """One scrape: types by name, label names by sample name, values by sample and labels."""

    def __init__(self, text: str) -> None:
        self._samples = [s for family in text_string_to_metric_families(text) for s in family.samples]
        self.types = {line.split()[2]: line.split()[3] for line in text.splitlines() if line.startswith("# TYPE ")}

    @property
    def labels(self) -> dict[str, frozenset[str]]:
        """The names of the labels of each sample."""
        return {sample.name: frozenset(sample.labels) for sample in self._samples}

    def buckets(self, name: str) -> list[float]:
        """The upper bounds of a histogram."""
        return sorted({float(s.labels["le"]) for s in self._samples if s.name == f"{name}_bucket"})

    def value(self, name: str, **labels: str) -> float:
        """The sum of the samples of that name that have these labels."""
        wanted = labels.items()
        return sum(s.value for s in self._samples if s.name == name and wanted <= s.labels.items())
