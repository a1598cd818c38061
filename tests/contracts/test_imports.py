"""Importing the package is quick, because nothing heavy comes with it."""

from __future__ import annotations

import subprocess
import sys

HEAVY = {"torch", "transformers", "peft", "tinker", "pandas", "plotly", "IPython", "ipywidgets", "datasets", "pyarrow"}


def python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_import_takes_less_than_300_ms() -> None:
    """The best of five, since only the best says what the import costs and not what else the machine is doing."""
    code = "import time; start = time.perf_counter(); import mint_lab; print(time.perf_counter() - start)"
    assert min(float(python(code)) for _ in range(5)) < 0.3


def test_import_brings_nothing_heavy() -> None:
    code = f"import sys, mint_lab; dir(mint_lab); print(sorted({HEAVY!r} & set(sys.modules)))"
    assert python(code) == "[]"


def test_data_brings_nothing_heavy() -> None:
    assert python(f"import sys, mint_lab.data; print(sorted({HEAVY!r} & set(sys.modules)))") == "[]"
