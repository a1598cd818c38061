"""Runs the front end's own checks, so that one pytest run covers both languages."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

import hatch_build

WIDGETS = Path(__file__).parents[2] / "widgets"


def npm(*arguments: str) -> str:
    command, environment = hatch_build.find_npm()
    done = subprocess.run(
        [*command, *arguments], cwd=WIDGETS, env=environment, capture_output=True, text=True, check=False, timeout=240
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module", autouse=True)
def dependencies() -> None:
    if hatch_build.needs_install(WIDGETS, checks=True):
        npm("ci")


@pytest.mark.parametrize("script", ["typecheck", "lint", "test"])
def test_the_front_ends_own_checks_pass(script: str) -> None:
    npm("run", script)


def test_the_lock_file_names_no_host() -> None:
    lock = (WIDGETS / "package-lock.json").read_text()
    assert re.findall('"resolved": "(.*)"', lock) == ["lab"]  # the workspace, which is a folder
    assert '"integrity"' in lock
