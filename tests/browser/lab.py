"""A JupyterLab server and a chromium for the browser tests.

The server gets configuration folders of its own, a token, and a free port of the loopback interface. A chromium that is
missing is an error, never a skipped test. JavaScript promises are raced against a timeout, because playwright's
``evaluate`` has none.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

import nbformat
from playwright.sync_api import BrowserContext, Page, Playwright, ViewportSize

from tests.waiting import until

from . import warm_kernel
from .shown import Shown

__all__ = [
    "BROWSERS",
    "Host",
    "Lab",
    "Notebook",
    "Server",
    "Shown",
    "chromium",
    "chromium_path",
    "serve",
    "write_notebook",
]

Host: TypeAlias = Literal["lab", "notebook"]

REPOSITORY = Path(__file__).parents[2]

BROWSER_ARGUMENTS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --force-color-profile=srgb"
).split()

# Counts what arrives on the kernel's websocket.
WEBSOCKET_COUNTER = """
(() => { const Real = window.WebSocket; window.__received = { messages: 0, bytes: 0 };
  const size = (data) => typeof data === "string" ? data.length : (data.byteLength ?? data.size ?? 0);
  window.WebSocket = class extends Real {
    constructor(url, protocols) { super(url, protocols);
      if (/\\/channels/.test(String(url))) this.addEventListener("message", (event) => {
        window.__received.messages += 1; window.__received.bytes += size(event.data); }); } };
})();
"""

KERNEL_READY = """async () => { const app = window.jupyterapp; await app.restored;
  const pause = () => new Promise((resolve) => requestAnimationFrame(resolve));
  while (!app.shell.currentWidget?.sessionContext) await pause();
  const panel = app.shell.currentWidget;
  await panel.revealed; await panel.context.ready; await panel.sessionContext.ready;
  const kernel = panel.sessionContext.session.kernel; await kernel.info;
  while (!(kernel.connectionStatus === "connected" && kernel.status === "idle")) await pause(); }"""

# Opens a notebook in the page that stands there, as a person does from the file browser.
OPEN = """async (path) => { const { commands, shell } = window.jupyterapp;
  const panel = await commands.execute("docmanager:open", { path }); shell.activateById(panel.id); }"""

# Closes every notebook without the question whether to save it; the launcher comes instead, and the sidebars are as in
# a new page.
CLOSE_ALL = """async () => { const { shell } = window.jupyterapp;
  for (const panel of [...shell.widgets("main")]) {
    if (panel.context) panel.context.model.dirty = false;
    panel.close(); }
  shell.expandLeft(); shell.collapseRight(); }"""

# What a cell has put out, from the notebook's model: the page may draw it some frames later.
OUTPUTS = """(index) => { const { outputs } = window.jupyterapp.shell.currentWidget.content.widgets[index].model;
  const lines = (text) => [text ?? ""].flat().join("");
  const told = ({ text, traceback, data }) => traceback ? traceback.join("\\n") : lines(text ?? data?.["text/plain"]);
  return Array.from({ length: outputs.length }, (_, i) => told(outputs.get(i).toJSON()).trim()).join("\\n"); }"""
COLOUR = re.compile(r"\x1b\[[\d;]*m")

# The theme's style sheet is in use, every widget has read it, and every chart in view is drawn in its colours.
IN_THEME = """(dark) => {
  const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const [red, green, blue] = numbers(getComputedStyle(document.body).backgroundColor);
  if ((0.2126 * red + 0.7152 * green + 0.0722 * blue < 102) !== dark) return false;
  return [...document.querySelectorAll(".mint-lab")].every((widget) => {
    if (widget.dataset.theme !== (dark ? "dark" : "light")) return false;
    const ink = document.createElement("span");
    ink.style.color = "var(--ml-muted)";
    widget.append(ink);
    const wanted = String(numbers(getComputedStyle(ink).color));
    ink.remove();
    return [...widget.querySelectorAll(".xtick text")].filter((tick) => tick.checkVisibility())
      .every((tick) => String(numbers(getComputedStyle(tick).fill)) === wanted); }); }"""


@dataclass(frozen=True)
class Server:
    """A running JupyterLab."""

    base: str
    token: str
    log: Path

    @property
    def environment(self) -> dict[str, str]:
        """Of the server's processes: where it looks for its configuration and what it trusts."""
        return _environment(self.log.parent)

    def request(self, path: str, method: str = "GET") -> Any:
        call = urllib.request.Request(self.base + path, headers={"Authorization": f"token {self.token}"}, method=method)
        with urllib.request.urlopen(call, timeout=60) as answer:
            body = answer.read()
        return json.loads(body) if body else None

    def stop_kernels(self) -> None:
        for session in self.request("/api/sessions"):
            self.request(f"/api/sessions/{session['id']}", "DELETE")


# The Makefile looks for the same programs.
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def chromium_path() -> str:
    """Where chromium is: what the variable CHROMIUM names, or else the first of ``BROWSERS`` on ``PATH``.

    Raises:
        FileNotFoundError: If there is none; the message says how to get one, and how to do without.
    """
    named = os.environ.get("CHROMIUM")
    path = next(filter(None, map(shutil.which, [named] if named else BROWSERS)), None)
    if path is None:
        found = f"CHROMIUM is {named}, which is not a program" if named else f"PATH has none of {', '.join(BROWSERS)}"
        raise FileNotFoundError(
            f"the browser tests need chromium, and {found}; install it (Debian: sudo apt-get install chromium), "
            'set CHROMIUM to the path of a Chromium or Chrome, or run all other tests: pytest -m "not browser"'
        )
    return path


def write_notebook(path: Path, cells: Sequence[str], kernel: str = "python3") -> Path:
    """A notebook of code cells, in a folder that is made where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
    notebook.metadata["kernelspec"] = {"name": kernel, "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, path)
    return path


@contextlib.contextmanager
def serve(root: Path, settings: Mapping[str, Any] | None = None) -> Iterator[Server]:
    """JupyterLab over ``root`` until the block ends; its kernels end with it."""
    home = Path(tempfile.mkdtemp(prefix="mint-lab-jupyter-"))
    _write_settings(home, settings or {})
    _install_extension(home / "data")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = Server(f"http://127.0.0.1:{port}", secrets.token_hex(16), home / "server.log")
    warm_kernel.specify(home / "data", home / "kernels.sock")
    with (
        server.log.open("w") as log,
        warm_kernel.start(home / "kernels.sock", _environment(home), log) as kernels,
    ):
        process = subprocess.Popen(
            _command(root, port, server.token), env=_environment(home), stdout=log, stderr=subprocess.STDOUT
        )
        try:
            _await_ready(server, process)
            yield server
        finally:
            _shut_down(server, process)
            kernels.kill()
            shutil.rmtree(home, ignore_errors=True)


def _command(root: Path, port: int, token: str) -> list[str]:
    options = {
        "ServerApp.ip": "127.0.0.1",
        "ServerApp.port": port,
        "ServerApp.port_retries": 0,
        "ServerApp.root_dir": root,
        "IdentityProvider.token": token,
        "LabApp.news_url": None,
        "LabApp.check_for_updates_class": "jupyterlab.NeverCheckForUpdate",
        "LabApp.extension_manager": "readonly",
        # Otherwise every notebook starts the type checker that happens to be installed beside JupyterLab.
        "LanguageServerManager.autodetect": False,
    }
    flags = [
        "--no-browser",
        "--allow-root",
        "--expose-app-in-browser",
        "--JupyterNotebookApp.expose_app_in_browser=True",
    ]
    return [sys.executable, "-m", "jupyterlab", *flags, *(f"--{name}={value}" for name, value in options.items())]


def _environment(home: Path) -> dict[str, str]:
    folders = {
        "JUPYTER_CONFIG_DIR": "config",
        "JUPYTER_DATA_DIR": "data",
        "JUPYTER_RUNTIME_DIR": "runtime",
        "JUPYTERLAB_SETTINGS_DIR": "settings",
        "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
        "IPYTHONDIR": "ipython",
    }
    own = {name: str(home / folder) for name, folder in folders.items()}
    # Kernels import the scripted run from the tests.
    path = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
    quiet = {"JUPYTER_PLATFORM_DIRS": "1", "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
    # In a virtual environment, Jupyter would load the extension that was installed there instead of this checkout's.
    quiet["JUPYTER_PREFER_ENV_PATH"] = "0"
    return {**os.environ, **own, **quiet, "PYTHONPATH": path}


def _install_extension(data: Path) -> None:
    """This checkout's JupyterLab extension, before any other that is installed."""
    built = REPOSITORY / "mint_lab" / "labextension"
    if not (built / "package.json").is_file():
        raise RuntimeError(f"{built} is missing; build the front end: python hatch_build.py run build")
    (data / "labextensions").mkdir(parents=True)
    (data / "labextensions" / "mint-lab").symlink_to(built, target_is_directory=True)


def _write_settings(home: Path, settings: Mapping[str, Any]) -> None:
    quiet = {"@jupyterlab/apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False}}
    for plugin, body in {**quiet, **settings}.items():
        path = home / "settings" / f"{plugin}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(body))
    # With every page, JupyterLab would have Node check its own build, which takes longer than to draw the page.
    page = home / "config" / "labconfig" / "page_config.json"
    page.parent.mkdir(parents=True)
    page.write_text(json.dumps({"buildAvailable": False, "buildCheck": False}))


def _await_ready(server: Server, process: subprocess.Popen[bytes]) -> None:
    def answers() -> bool:
        if process.poll() is not None:
            raise RuntimeError(f"JupyterLab ended at once:\n{server.log.read_text()[-3000:]}")
        with contextlib.suppress(OSError):
            server.request("/api/status")
            return True
        return False

    until(answers, lambda: f"JupyterLab does not answer:\n{server.log.read_text()[-3000:]}", limit=240)


def _shut_down(server: Server, process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(OSError, ValueError):
        server.stop_kernels()
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


VIEWPORT: ViewportSize = {"width": 1400, "height": 1200}


@contextlib.contextmanager
def chromium(playwright: Playwright) -> Iterator[BrowserContext]:
    """A fresh browser profile until the block ends."""
    with tempfile.TemporaryDirectory(prefix="mint-lab-chromium-", ignore_cleanup_errors=True) as profile:
        context = playwright.chromium.launch_persistent_context(
            profile,
            executable_path=chromium_path(),
            headless=True,
            args=BROWSER_ARGUMENTS,
            viewport=VIEWPORT,
        )
        context.add_init_script(WEBSOCKET_COUNTER)
        context.set_default_timeout(240_000)
        try:
            yield context
        finally:
            context.close()


@dataclass
class Notebook(Shown):
    """One notebook open in JupyterLab or Notebook 7."""

    def load(self) -> Notebook:
        self.page.goto(self.url)
        self.page.wait_for_function("() => window.jupyterapp !== undefined", timeout=120_000)
        return self

    def open(self) -> Notebook:
        self.load()
        self.evaluate(KERNEL_READY, 600)
        return self

    def open_here(self) -> Notebook:
        """As :meth:`open`, in a page that has loaded JupyterLab."""
        self.evaluate(OPEN, 60, self.name)
        self.evaluate(KERNEL_READY, 600)
        return self

    def leave(self) -> None:
        """Close everything that is open in JupyterLab, in its light theme.

        What JupyterLab complains about while it closes a notebook whose kernel still answers is not the test's.
        """
        self.stop_listening()
        if self.evaluate("() => document.body.dataset.jpThemeLight") == "false":
            self.theme("JupyterLab Light")
        self.evaluate(CLOSE_ALL)
        self.widget.wait_for(state="detached")

    def reload(self) -> Notebook:
        """Save and load the page again; waits for the widget to stand."""
        self.command("docmanager:save")
        self.open()
        self.widget.wait_for()
        return self

    def show(self) -> Notebook:
        """Run all cells and wait for the widget."""
        self.run_all()
        self.widget.wait_for()
        return self

    def command(self, name: str, arguments: Any = None) -> None:
        self.evaluate(
            "async ([name, given]) => { await window.jupyterapp.commands.execute(name, given ?? {}); }",
            240,
            [name, arguments],
        )

    def run_all(self) -> None:
        self.command("notebook:run-all-cells")

    def run_cell(self, index: int) -> str:
        """Execute cell ``index`` and return the text of its outputs."""
        self.evaluate("(index) => { window.jupyterapp.shell.currentWidget.content.activeCellIndex = index; }", 5, index)
        self.command("notebook:run-cell")
        return COLOUR.sub("", self.evaluate(OUTPUTS, 10, index))

    def replace_cell(self, index: int, source: str) -> str:
        """Put ``source`` in place of cell ``index``, run it, and return the text of its outputs."""
        self.evaluate(
            """([index, source]) => { const { content } = window.jupyterapp.shell.currentWidget;
                 content.widgets[index].model.sharedModel.setSource(source); }""",
            5,
            [index, source],
        )
        return self.run_cell(index)

    def edit_cell(self, index: int, source: str) -> str:
        """Write ``source`` over cell ``index`` with the keyboard, run it, and return the text of its outputs."""
        self.page.locator(".jp-Notebook .jp-Cell").nth(index).locator(".cm-content").click()
        self.page.keyboard.press("Control+a")
        self.page.keyboard.insert_text(source)
        self.page.wait_for_function(
            """([index, source]) => window.jupyterapp.shell.currentWidget.content.widgets[index].model.sharedModel
                 .getSource() === source""",
            arg=[index, source],
        )
        return self.run_cell(index)

    def await_end(self, status: str = "finished", timeout: float = 600) -> None:
        """Wait until the run has ended and its output is displayed again, with the picture for the saved notebook."""
        self.await_status(status, timeout)
        self.page.wait_for_function(
            """() => window.jupyterapp.shell.currentWidget.content.model.sharedModel.toJSON().cells.some(
                 ({ outputs }) => outputs?.some(({ data }) => data && "image/png" in data))""",
            timeout=1000 * timeout,
        )
        self.widget.wait_for()

    def theme(self, name: str) -> None:
        """Change to another theme, and wait until all is drawn in its colours."""
        self.command("apputils:change-theme", {"theme": name})
        self.page.wait_for_function(IN_THEME, arg=name.endswith("Dark"))
        self.await_frames()


@dataclass(frozen=True)
class Lab:
    """A server with a browser; opens notebooks."""

    server: Server
    context: BrowserContext
    root: Path
    kept: list[Page] = field(default_factory=list)
    """A page of JupyterLab in which nothing is open."""

    def notebook(self, name: str, cells: Sequence[str], host: Host = "lab") -> Notebook:
        """A new notebook of ``cells``, open in JupyterLab or Notebook 7; in a page that was kept, if there is one."""
        write_notebook(self.root / name, cells, warm_kernel.NAME if host == "lab" else "python3")
        if host == "lab" and self.kept:
            return Notebook(self.kept.pop(), self.url(name, host), name).open_here()
        return self.reopen(name, host)

    def keep(self, notebook: Notebook) -> None:
        """Close a notebook of JupyterLab, and keep its page for the next one as a new page would be.

        To load JupyterLab takes about three seconds of processor time.
        """
        page = notebook.page
        if self.kept or page.is_closed():
            page.close()
            return
        notebook.leave()
        page.set_viewport_size(VIEWPORT)
        page.mouse.move(0, 0)
        self.kept.append(page)

    def reopen(self, name: str, host: Host = "lab") -> Notebook:
        """A notebook that is there, in a page of its own."""
        return Notebook(self.context.new_page(), self.url(name, host), name).open()

    def url(self, name: str, host: Host = "lab") -> str:
        """The address of a notebook or folder, in JupyterLab with a workspace of its own.

        JupyterLab loads a page a second time if another page has its workspace, or if the address asks for a reset.
        """
        place = f"lab/workspaces/{secrets.token_hex(8)}/tree" if host == "lab" else "notebooks"
        return f"{self.server.base}/{place}/{name}?token={self.server.token}"

    def voila(self, name: str, cells: Sequence[str]) -> Shown:
        """A new notebook of ``cells`` as an application: its outputs alone, made when the page is asked for."""
        write_notebook(self.root / name, cells)
        shown = Shown(
            self.context.new_page(), f"{self.server.base}/voila/render/{name}?token={self.server.token}", name
        )
        shown.page.goto(shown.url, timeout=240_000)
        return shown

    def stop_kernels(self) -> None:
        self.server.stop_kernels()
