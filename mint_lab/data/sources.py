"""Rows from files, data frames, data sets and lists.

pandas, pyarrow and datasets are imported only if a source needs them.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from ..errors import DataError

__all__ = ["rows"]

FORMATS = ".jsonl, .jsonl.gz or .parquet"


def rows(source: Any) -> Iterator[Any]:
    """Yield the rows of ``source``: mappings, or the objects of an iterable in memory.

    Raises:
        DataError: If ``source`` has an unsupported type, there is no such file, its format is unsupported, or a line
            is not JSON.
    """
    if isinstance(source, (str, Path)):
        yield from _file(Path(source).expanduser())
        return
    module = type(source).__module__.partition(".")[0]
    if module == "pandas" and hasattr(source, "columns"):
        # to_dict would copy the whole frame before the first row.
        names = [str(name) for name in source.columns]
        yield from (dict(zip(names, row, strict=True)) for row in source.itertuples(index=False, name=None))
    elif isinstance(source, Mapping):
        raise DataError(_mapping_message(cast("Mapping[Any, Any]", source), module))
    elif isinstance(source, Iterable):
        yield from cast("Iterable[Any]", source)
    else:
        raise DataError(f"found {type(source).__name__}, expected a path, a data frame, a data set or a list of rows")


def _file(path: Path) -> Iterator[Mapping[str, Any]]:
    name = path.name.lower()
    if not name.endswith((".jsonl", ".jsonl.gz", ".parquet")):
        ending = f"ends with {path.suffix!r}" if path.suffix else "has no suffix"
        raise DataError(f"{path} {ending}, expected {FORMATS}")
    if not path.is_file():
        raise DataError(f"{path} is {'a folder' if path.is_dir() else 'missing'}, expected a file ({FORMATS})")
    return _parquet(path) if name.endswith(".parquet") else _json_lines(path)


def _json_lines(path: Path) -> Iterator[Mapping[str, Any]]:
    opener: Any = gzip.open if path.name.lower().endswith(".gz") else open
    try:
        with opener(path, "rt", encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield _json_object(line, path, number)
    except (gzip.BadGzipFile, EOFError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path} cannot be read as {'.jsonl.gz' if opener is gzip.open else '.jsonl'}: {error}"
        ) from error


def _json_object(line: str, path: Path, number: int) -> Mapping[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{path}, line {number} is not JSON: {error.msg} at character {error.pos + 1}") from error
    if not isinstance(row, dict):
        raise DataError(f"{path}, line {number} holds {type(row).__name__}, expected an object with named columns")
    return cast("dict[str, Any]", row)


def _parquet(path: Path) -> Iterator[Mapping[str, Any]]:
    try:
        import pyarrow as arrow
        from pyarrow import parquet
    except ImportError as error:
        raise DataError(f"{path}: reading Parquet needs pyarrow; `pip install 'mint_lab[data]'`") from error
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches():
                yield from batch.to_pylist()
    except arrow.ArrowInvalid as error:
        raise DataError(f"{path} is not Parquet: {error}") from error


def _mapping_message(source: Mapping[Any, Any], module: str) -> str:
    if module == "datasets":
        return f"found a data set with splits, expected one of them: {', '.join(map(repr, source))}"
    return "found a single mapping, expected a list of mappings, one per row"
