"""What ``make`` says to a newcomer whose machine lacks something: a browser, a network, a Python that fits."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.browser.lab import BROWSERS, chromium_path

ROOT = Path(__file__).resolve().parents[2]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
INSTALL = "Install chromium (Debian: sudo apt-get install chromium)"


class Machine:
    """An empty folder in which the Makefile runs, with no program on ``PATH`` but those that a test adds."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.programs = folder, folder / "programs of this machine"
        self.programs.mkdir()
        (folder / "Makefile").symlink_to(ROOT / "Makefile")
        for name in ("sh", "find", "touch", "cp"):
            (self.programs / name).symlink_to(str(shutil.which(name)))
        self.add("id", "echo 1000")
        self.add("uname", "echo Linux")

    def add(self, name: str, script: str) -> Path:
        path = self.programs / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(f"#!{shutil.which('sh')}\n{script}\n")
        path.chmod(0o755)
        return path

    def add_python(self, name: str, version: str, *, is_too_old: bool = False, has_venv: bool = False) -> Path:
        """A program that answers the Makefile's questions as a Python of this version; it has no pip."""
        answers = {
            "--version": f"echo Python {version}",
            "*platform*": f"echo {version}",
            '*"< (3, 11)"*': f"exit {int(is_too_old)}",
            '*"-m venv"*': f"exit {int(not has_venv)}",
        }
        cases = " ".join(f"{question}) {answer};;" for question, answer in answers.items())
        return self.add(name, f'case "$*" in {cases} *) exit 1;; esac')

    def make(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": str(self.programs), "HOME": str(self.folder), **variables}
        command = [str(shutil.which("make")), *arguments]
        return subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False)

    def refusal(self, *arguments: str, **variables: str) -> str:
        """The output of a ``make`` that must fail."""
        done = self.make(*arguments, **variables)
        assert done.returncode == 2, done.stdout + done.stderr
        return done.stdout


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_missing_chromium_is_named_with_three_ways_out(machine: Machine) -> None:
    first, *rest = machine.refusal("browser").splitlines()
    assert first == f"make test needs chromium, and PATH has none of these: {' '.join(BROWSERS)}."
    assert rest == [
        INSTALL,
        "or name a Chromium or Chrome: make test CHROMIUM=/path/to/chromium",
        "or run everything but the browser tests: make test PYTEST_ARGS='-m \"not browser\"'",
    ]


@pytest.mark.parametrize("name", BROWSERS)
def test_a_browser_on_path_is_enough(machine: Machine, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    program = machine.add(name, "exit 0")
    done = machine.make("browser")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    monkeypatch.delenv("CHROMIUM", raising=False)
    monkeypatch.setenv("PATH", str(machine.programs))
    assert chromium_path() == str(program)


def test_chromium_variable_may_be_a_path_with_a_space(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.add("chromium", "exit 0")
    program = machine.add("my browsers/chrome", "exit 0")
    assert machine.make("browser", CHROMIUM=str(program)).returncode == 0
    assert machine.make("browser", f"CHROMIUM={program}").returncode == 0
    monkeypatch.setenv("PATH", str(machine.programs))
    monkeypatch.setenv("CHROMIUM", str(program))
    assert chromium_path() == str(program)


def test_chromium_variable_that_names_no_program_is_refused(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Although the machine has another browser: the tests would run in the wrong one."""
    machine.add("chromium", "exit 0")
    assert machine.refusal("browser", CHROMIUM="/no where").splitlines()[:2] == [
        "CHROMIUM is /no where, which is not a program.",
        INSTALL,
    ]
    monkeypatch.setenv("PATH", str(machine.programs))
    monkeypatch.setenv("CHROMIUM", "/no where")
    with pytest.raises(FileNotFoundError, match="chromium, and CHROMIUM is /no where, which is not a program; install"):
        chromium_path()


def test_pytest_without_chromium_says_how_to_get_one(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CHROMIUM", raising=False)
    monkeypatch.setenv("PATH", str(machine.programs))
    with pytest.raises(FileNotFoundError) as caught:
        chromium_path()
    message = str(caught.value)
    assert "PATH has none of chromium, chromium-browser, google-chrome; install it" in message
    assert "apt-get install chromium" in message
    assert 'pytest -m "not browser"' in message


def test_root_installs_chromium_with_apt(machine: Machine) -> None:
    machine.add("id", "echo 0")
    body = f'[ "$1" = update ] || cp "{machine.programs}/id" "{machine.programs}/chromium"'
    machine.add("apt-get", body)
    done = machine.make("browser")
    assert (done.returncode, done.stdout) == (0, "installing chromium for the browser tests\n")
    assert (machine.programs / "chromium").exists()


@pytest.mark.parametrize("status", [0, 100])
def test_apt_that_installs_no_chromium_is_an_error(machine: Machine, status: int) -> None:
    """``apt-get`` can succeed without a browser: a package of the same name may be installed but hidden from PATH."""
    machine.add("id", "echo 0")
    machine.add("apt-get", f"exit {status}")
    assert machine.refusal("browser").splitlines()[1:3] == [
        "make test needs chromium, and apt-get did not install it.",
        INSTALL,
    ]


def test_apt_is_used_only_by_root_or_with_sudo_that_asks_no_password(machine: Machine) -> None:
    used = machine.folder / "used"
    machine.add("apt-get", f'touch "{used}"')
    assert "PATH has none of these" in machine.refusal("browser")
    machine.add("sudo", "exit 1")
    assert "PATH has none of these" in machine.refusal("browser")
    assert not used.exists()
    machine.add("sudo", 'if [ "$1" = -n ]; then exit 0; fi; "$@"')
    assert "apt-get did not install it" in machine.refusal("browser")
    assert used.exists()


def test_make_test_looks_for_the_browser_before_it_installs(machine: Machine) -> None:
    machine.add_python("python3", "3.12.1")
    assert machine.refusal("test").startswith("make test needs chromium")
    assert not (machine.folder / ".venv").exists()


def test_make_test_needs_no_browser_if_no_browser_test_is_selected(machine: Machine) -> None:
    (machine.folder / "Makefile").unlink()
    for path in ("Makefile", "pyproject.toml", "constraints.txt", "hatch_build.py"):
        (machine.folder / path).symlink_to(ROOT / path)
    done = machine.make("-n", "test", "PYTEST_ARGS=-m 'not browser'")
    assert done.stdout.rstrip().endswith("-m 'not browser'"), done.stderr
    assert "chromium" not in done.stdout
    assert "chromium" in machine.make("-n", "test", "PYTEST_ARGS=-m browser").stdout


def test_continuous_integration_selects_no_tests() -> None:
    """So a missing browser is an error there."""
    for name in (".ci/run", ".github/workflows/test.yml"):
        assert "PYTEST_ARGS" not in (ROOT / name).read_text(encoding="utf-8")


def test_an_old_python_is_refused(machine: Machine) -> None:
    machine.add_python("python3", "3.10.13", is_too_old=True)
    message = machine.refusal("lab")
    assert message.startswith("mint_lab needs Python 3.11 or newer, and python3 is Python 3.10.13; name another one:")
    assert message.count("\n") == 1


@pytest.mark.parametrize("target", ["lab", "test-oldest"])
def test_a_python_that_does_not_exist_is_named(machine: Machine, target: str) -> None:
    message = "There is no program /no where/python; name a Python, 3.11 to 3.13: make PYTHON=/path/to/python3"
    assert machine.refusal(target, "PYTHON=/no where/python").splitlines() == [message]


def test_the_oldest_versions_need_their_python(machine: Machine) -> None:
    python = machine.add_python("my pythons/python", "3.13.0")
    assert f"is for Python 3.11, and {python} is Python 3.13.0;" in machine.refusal("test-oldest", f"PYTHON={python}")


def test_a_python_without_venv_and_pip_is_refused(machine: Machine) -> None:
    machine.add_python("python3", "3.12.1")
    first, last = machine.refusal("lab").splitlines()
    assert first == "creating .venv with Python 3.12.1"
    assert last.startswith(
        "python3 cannot create an environment that has pip; install venv and pip (Debian: sudo apt-get"
    )


def test_an_environment_keeps_its_python(machine: Machine) -> None:
    """``make test PYTHON=python3.13`` must not test with the 3.12 that an earlier command installed."""
    used = machine.add_python(".venv/bin/python", "3.12.1")
    (machine.folder / ".venv").symlink_to(used.parents[1])
    (machine.folder / ".venv" / ".python").touch()
    machine.add_python("python3", "3.11.7")
    machine.add_python("python3.12", "3.12.1")
    machine.add_python("python3.13", "3.13.0")
    check = ".venv/.same-python"
    assert machine.make(check).returncode == 0  # no PYTHON on the command line: the environment decides
    assert machine.make(check, "PYTHON=python3.12").returncode == 0
    message = machine.refusal(check, "PYTHON=python3.13")
    assert message.startswith(".venv has Python 3.12.1, and python3.13 is Python 3.13.0: run 'make clean' first,")
    assert message.endswith(" make VENV=.venv-3.13.0 PYTHON=python3.13\n")
    assert "is Python 3.13.0" in machine.refusal(".venv/.torch-2.13.0", "PYTHON=python3.13", "TORCH_VERSION=2.13.0")


def test_an_installation_that_fails_ends_with_what_to_do(machine: Machine) -> None:
    """The last line of pip is "No matching distribution found" if there is no network."""
    lines = machine.refusal("torch", "PIP=false", "PYTHON=false").splitlines()
    assert lines[0].startswith("installing torch ")
    assert lines[0].endswith("/whl/cpu does not answer; pip's index may have the CUDA build only, several GB)")
    assert lines[1] == "The installation failed; the lines above say why."
    assert "No connection: check the network" in lines[2]
    assert {"HTTPS_PROXY", "PIP_INDEX_URL", "NPM_CONFIG_REGISTRY"} <= set(re.findall(r"[A-Z_]{6,}", lines[2]))
    assert lines[-1] == "Then repeat the command; what is already installed stays."


def test_every_installation_explains_a_failure() -> None:
    recipes = re.sub(r"\\\n\s*", "", MAKEFILE)
    commands = re.findall(r"^.*\$\(PIP\) install.*$", recipes, re.MULTILINE)
    assert len(commands) == 5
    assert [line for line in commands if not line.rstrip().endswith("|| $(INSTALL_FAILED)")] == []


@pytest.mark.parametrize(
    ("system", "gpu", "index"),
    [
        ("Linux", False, " --index-url https://download.pytorch.org/whl/cpu"),
        ("Linux", True, ""),
        ("Darwin", False, ""),
    ],
)
def test_the_cpu_build_is_for_linux_without_a_gpu(machine: Machine, system: str, gpu: bool, index: str) -> None:
    machine.add("uname", f"echo {system}")
    machine.add("nvidia-smi", f"exit {int(not gpu)}")
    machine.add("answers", "exit 0")
    machine.add("pip", 'echo "$*"')
    version = re.findall(r"^TORCH_VERSION := (\S+)$", MAKEFILE, re.MULTILINE)[0]
    done = machine.make("torch", "PIP=pip", "PYTHON=answers")
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1] == f"install --quiet{index} torch=={version}"
