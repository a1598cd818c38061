"""Checks of a loss before it may train."""

from __future__ import annotations

from .report import Report, ReportLine
from .run_checks import LIMIT_SECONDS, check, preflight, random_logprobs

__all__ = ["LIMIT_SECONDS", "Report", "ReportLine", "check", "preflight", "random_logprobs"]
