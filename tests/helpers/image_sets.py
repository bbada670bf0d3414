"""Image data sets, and local copies of their archives."""

from pathlib import Path

from cml_bench import registry
from cml_bench.data._source import sha256_of
from cml_bench.data.prepared import LocalCopy


def make(name: str, **options):
    cls = registry.datasets.get(name)
    return cls(cls.Options(**options))


def copies(paths: list[Path]) -> dict[str, LocalCopy]:
    return {path.name: LocalCopy(path=str(path), sha256=sha256_of(path)) for path in paths}
