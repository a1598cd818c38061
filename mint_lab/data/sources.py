"""Rows from files, data frames, data sets, lists and the Hugging Face hub.

pandas, pyarrow and datasets are imported only if a source needs them.
"""

from __future__ import annotations

import gzip
import itertools
import json
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar, cast

from ..errors import DataError

__all__ = ["OnBadRow", "Rows", "named_rows", "rows"]

SUFFIXES = (".jsonl", ".jsonl.gz", ".parquet")
OTHER_SUFFIXES = (
    ".csv",
    ".tsv",
    ".txt",
    ".json",
    ".gz",
    ".zip",
    ".xlsx",
    ".arrow",
    ".pkl",
    ".pt",
)  # a file, no data set
FORMATS = ".jsonl, .jsonl.gz or .parquet"
HUB_FORM = "the name of a data set on the hub, 'owner/name' or 'owner/name:configuration:split'"
# A data set on the hub: owner/name, perhaps :configuration and :split.
HUB_NAME = re.compile(r"(?P<path>[\w.-]+/[\w.-]+)(?::(?P<config>[\w.-]*))?(?::(?P<split>[\w.-]+))?")

OnBadRow: TypeAlias = Literal["raise", "skip"]
"""What becomes of a row that cannot be used: an error, or it is left out and counted."""

HUB_TIMEOUT_SECONDS = 5.0

T = TypeVar("T")


class Rows:
    """A source of rows, with how many of them to read and what to do with those that cannot be used.

    Args:
        source: What :func:`rows` takes.
        max_rows: Maximum number of rows to read; later rows are not checked. None for all.
        on_bad_row: "raise" or "skip".

    Attributes:
        n_read: Rows read so far.
        skipped: Why rows were left out, by their number, from 0.

    Raises:
        DataError: If ``max_rows`` is below 1, or ``on_bad_row`` is neither of the two.
    """

    def __init__(self, source: Any, *, max_rows: int | None = None, on_bad_row: OnBadRow = "raise") -> None:
        if max_rows is not None and max_rows < 1:
            raise DataError(f"found {max_rows}, expected at least 1, or None for all", field="max_rows")
        if on_bad_row not in {"raise", "skip"}:
            raise DataError(f"found {on_bad_row!r}, expected 'raise' or 'skip'", field="on_bad_row")
        if isinstance(source, Rows):
            max_rows = min((n for n in (max_rows, source.max_rows) if n is not None), default=None)
            source = source.source
        self.source = source
        self.max_rows = max_rows
        self.on_bad_row: OnBadRow = on_bad_row
        self.n_read = 0
        self.skipped: dict[int, str] = {}

    @classmethod
    def of(cls, source: Any) -> Rows:
        """Return ``source`` if it is one, or else all its rows, of which a bad one is an error."""
        return source if isinstance(source, cls) else cls(source)

    def map(self, use: Callable[[Any, int], T]) -> list[T]:
        """Return ``use(row, number)`` of every row that it accepts, in order.

        Raises:
            DataError: If there are no rows, or none that can be used; and, if bad rows are errors, for the first of
                them, whose number is ``error.index``.
        """
        found: list[T] = []
        self.n_read, self.skipped = 0, {}
        for number, row in enumerate(itertools.islice(_read(self.source), self.max_rows)):
            self.n_read += 1
            try:
                if isinstance(row, DataError):
                    raise row
                found.append(use(row, number))
            except DataError as error:
                if self.on_bad_row == "raise":
                    if error is row or error.index is not None:
                        raise
                    raise error.at(number) from error
                self.skipped[number] = error.message if error.field is None else f"{error.field}: {error.message}"
        if not self.n_read:
            raise DataError(f"{_name(self.source)} is empty, expected at least one row: there is nothing to train on")
        if not found:
            raise DataError(f"none of the {self.n_read} rows of {_name(self.source)} can be used; {self.note()}")
        return found

    def note(self) -> str:
        """Return a sentence about the rows that were left out, with the most frequent reasons; "" if there are none."""
        if not self.skipped:
            return ""
        by_reason: dict[str, list[int]] = {}
        for number, reason in self.skipped.items():
            by_reason.setdefault(reason, []).append(number)
        most = sorted(by_reason.items(), key=lambda each: -len(each[1]))
        told = [f"{reason} ({named_rows(numbers)})" for reason, numbers in most[:NAMED]]
        others = len(self.skipped) - sum(len(numbers) for _, numbers in most[:NAMED])
        told += [f"{others} for other reasons"] if others else []
        return f"{len(self.skipped)} of {self.n_read} rows were left out: {'; '.join(told)}"


# How many rows, or reasons, a note names.
NAMED = 5


def named_rows(numbers: list[int]) -> str:
    """Return "row 7", or "rows 7, 9 and 40"; of many, the first and how many more there are."""
    names = [str(number) for number in numbers[:NAMED]]
    if len(numbers) > NAMED:
        names.append(f"{len(numbers) - NAMED} more")
    *first, last = names
    return f"rows {', '.join(first)} and {last}" if first else f"row {last}"


def rows(source: Any) -> Iterator[Any]:
    """Yield the rows of ``source``: mappings, or the objects of an iterable in memory.

    Args:
        source: A path that ends in ``.jsonl``, ``.jsonl.gz`` or ``.parquet``; the name of a data set on the Hugging
            Face hub, ``"owner/name"``, ``"owner/name:configuration"`` or ``"owner/name:configuration:split"`` (the
            configuration may be empty; the default split is "train"), which is read as a stream; a pandas DataFrame; a
            ``datasets.Dataset``; or an iterable.

    Raises:
        DataError: If ``source`` has an unsupported type, there is no such file, its format is unsupported, a line
            is not JSON, or the hub cannot be read.
    """
    for row in _read(source):
        if isinstance(row, DataError):
            raise row
        yield row


def _read(source: Any) -> Iterator[Any]:
    """As :func:`rows`, but a line of a file that is not a row of JSON is yielded as the error that says so."""
    if isinstance(source, (str, Path)):
        text = str(source)
        named = HUB_NAME.fullmatch(text) if isinstance(source, str) else None
        if named and not text.lower().endswith((*SUFFIXES, *OTHER_SUFFIXES)) and not Path(text).exists():
            yield from _hub(text, named["path"], named["config"] or None, named["split"] or "train")
        else:
            yield from _file(Path(source).expanduser())
        return
    module = type(source).__module__.partition(".")[0]
    if module == "pandas" and hasattr(source, "columns"):
        yield from _frame(source)
    elif isinstance(source, Mapping):
        raise DataError(_mapping_message(cast("Mapping[Any, Any]", source), module))
    elif isinstance(source, Iterable):
        yield from cast("Iterable[Any]", source)
    else:
        raise DataError(f"found {type(source).__name__}, expected a path, a data frame, a data set or a list of rows")


def _frame(frame: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the rows of a data frame; a cell that is NA or NaT, which have no truth value, is None."""
    import pandas as pd

    missing = (pd.NA, pd.NaT)
    names = [str(name) for name in frame.columns]
    for row in frame.itertuples(index=False, name=None):  # to_dict would copy the whole frame before the first row
        cells = (None if any(value is one for one in missing) else value for value in row)
        yield dict(zip(names, cells, strict=True))


def _file(path: Path) -> Iterator[Mapping[str, Any] | DataError]:
    name = path.name.lower()
    if not name.endswith(SUFFIXES):
        ending = f"ends with {path.suffix!r}" if path.suffix else "has no suffix"
        raise DataError(f"{path} {ending}, expected {FORMATS}, or {HUB_FORM}")
    if not path.is_file():
        raise DataError(f"{path} is {'a folder' if path.is_dir() else 'missing'}, expected a file ({FORMATS})")
    return _parquet(path) if name.endswith(".parquet") else _json_lines(path)


def _json_lines(path: Path) -> Iterator[Mapping[str, Any] | DataError]:
    opener: Any = gzip.open if path.name.lower().endswith(".gz") else open
    try:
        with opener(path, "rb") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield _json_object(line, path, number)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(
            f"{path} cannot be read as {'.jsonl.gz' if opener is gzip.open else '.jsonl'}: {error}"
        ) from error


def _json_object(line: bytes, path: Path, number: int) -> Mapping[str, Any] | DataError:
    try:
        row = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))  # Windows writes a byte order mark
    except UnicodeDecodeError as error:
        found = f"byte {error.object[error.start]:#x} at byte {error.start + 1}"
        kind = ".jsonl.gz" if path.name.lower().endswith(".gz") else ".jsonl"
        return DataError(
            f"{path} cannot be read as {kind}: line {number} is not UTF-8 ({found}); save the file as UTF-8"
        )
    except json.JSONDecodeError as error:
        return DataError(f"{path}, line {number} is not JSON: {error.msg} at character {error.pos + 1}")
    if not isinstance(row, dict):
        return DataError(f"{path}, line {number} holds {type(row).__name__}, expected an object with named columns")
    return cast("dict[str, Any]", row)


def _hub(source: str, path: str, config: str | None, split: str) -> Iterator[Mapping[str, Any]]:
    try:
        import datasets
    except ImportError as error:
        raise DataError(f"{source}: reading a data set by name needs datasets; `pip install datasets`") from error
    try:
        _check_hub()  # datasets would try again and again, for about a minute
        yield from datasets.load_dataset(path, config, split=split, streaming=True)
    except Exception as error:  # datasets, huggingface_hub and httpx have many kinds, and no common base
        raise DataError(
            f"the data set {source!r} cannot be read from the Hugging Face hub ({type(error).__name__}: "
            f"{str(error).splitlines()[0] if str(error) else 'no message'}); check its name and the network, or give "
            f"the path of a file ({FORMATS})"
        ) from error


def _check_hub() -> None:
    from huggingface_hub import constants, get_session

    if not constants.HF_HUB_OFFLINE:
        get_session().head(constants.ENDPOINT, timeout=HUB_TIMEOUT_SECONDS)


def _name(source: Any) -> str:
    return str(source) if isinstance(source, (str, Path)) else f"the {type(source).__name__}"


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
