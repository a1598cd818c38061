"""The fixtures of the runs, which the trainers of the recipes are tested through."""

from __future__ import annotations

from ..runs.conftest import make_run

__all__ = ["make_run"]
