"""Public names and signatures change on purpose only: they are written down in ``public.txt``, next to this file."""

from __future__ import annotations

import importlib.util
from pathlib import Path

HERE = Path(__file__).parent


def test_the_public_face_is_as_written_down() -> None:
    """After a change that is meant: ``python -m tests.contracts.public > tests/contracts/public.txt``."""
    location = importlib.util.spec_from_file_location("public", HERE / "public.py")
    assert location
    assert location.loader
    public = importlib.util.module_from_spec(location)
    location.loader.exec_module(public)
    assert public.describe().splitlines() == (HERE / "public.txt").read_text(encoding="utf-8").splitlines()
