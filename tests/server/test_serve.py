"""``mint-lab serve`` as a process, and the unmodified SDKs that train with it."""

from __future__ import annotations

import importlib.metadata
import json
import math
import socket
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from mint_lab import cli
from mint_lab.client.service import ServiceClient
from mint_lab.errors import ConfigError
from mint_lab.server.serve import check_keys, default_folder, serve, server_key
from mint_lab.server.sessions import ServerSettings

from ..contracts.oldest_tinker import OLDEST, ROOT, oldest_tinker
from ..waiting import TIMEOUT
from . import sdk_program
from .process import ENVIRONMENT, served
from .sdk_program import KEY

NEWEST = importlib.metadata.version("tinker")


# -- keys and addresses ------------------------------------------------------------------------------------------------


def test_key_stays_over_restarts(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "state"
    key = server_key(folder)
    assert check_keys([key]) == [key]
    assert server_key(folder) == key
    assert stat.S_IMODE((folder / "key").stat().st_mode) == 0o600
    assert server_key(tmp_path / "b") != key
    (folder / "key").write_text("")
    with pytest.raises(ConfigError, match="is not acceptable"):
        server_key(folder)
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"cannot use .*file"):
        server_key(tmp_path / "file")


@pytest.mark.parametrize("key", ["", "tml-", "tml-short", "sk-1234567890", "tml-with space", "tml-" + "x" * 300])
def test_keys_that_the_sdk_refuses(key: str) -> None:
    with pytest.raises(ConfigError, match=r"expected tml- and 8 to 200 further characters") as raised:
        check_keys([KEY, key])
    assert len(key) < 10 or key not in str(raised.value), "a key is not printed whole"


def test_repeated_keys_are_one() -> None:
    assert check_keys([KEY, KEY]) == [KEY]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
def test_other_hosts_require_a_key(host: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="can be reached by others; give a key of your choice with --key"):
        serve(ServerSettings(tmp_path, ()), host)
    assert list(tmp_path.iterdir()) == []


def test_address_that_is_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = CliRunner().invoke(cli.app, ["serve", "--port", str(port), "--folder", str(tmp_path)])
    assert result.exit_code == 1
    assert result.output.startswith(f"mint-lab: cannot listen on 127.0.0.1, port {port}: ")
    assert result.output.count("\n") == 1


def test_model_that_does_not_exist(tmp_path: Path) -> None:
    options = ["--port", "0", "--folder", str(tmp_path), "--model", str(tmp_path / "nothing")]
    result = CliRunner().invoke(cli.app, ["serve", *options])
    assert result.exit_code == 1
    assert result.output.startswith("mint-lab: ")
    assert "nothing" in result.output


def test_packages_that_are_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(ConfigError, match=r"uvicorn is not installed; .* pip install 'mint_lab\[serve\]'"):
        serve(ServerSettings(tmp_path, (KEY,)))


def test_folder_of_the_state(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINT_LAB_HOME", "/somewhere")
    assert default_folder() == Path("/somewhere/server")


# -- the SDKs ----------------------------------------------------------------------------------------------------------


def program(environment: dict[str, str], *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "ignore", "-m", "tests.server.sdk_program", *arguments]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, cwd=ROOT, env=environment, text=True, **pipes)


def finish(client: subprocess.Popen[str], line: str = "") -> tuple[str, str]:
    """Return what a program wrote; one that waits for the server without end is killed."""
    try:
        return client.communicate(line, timeout=2 * TIMEOUT)
    finally:
        client.kill()


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The results of the client in this process."""
    service = ServiceClient(tmp_path_factory.mktemp("local"))
    return json.loads(json.dumps({name: part(service) for name, part in sdk_program.PARTS.items()}))


def environment_of(version: str) -> dict[str, str]:
    return (oldest_tinker() | {"TINKER_TELEMETRY": "0"}) if version == OLDEST else ENVIRONMENT


@pytest.fixture(scope="module", params=[NEWEST, OLDEST])
def remote(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The results of an SDK with a server process."""
    with served(tmp_path_factory.mktemp("served")) as (_, url):
        output, errors = finish(program(environment_of(request.param), url))
    assert output, errors
    return json.loads(output.splitlines()[-1])


def close(found: Any, expected: Any) -> bool:
    """Return whether all numbers of two results agree to 1e-6."""
    if isinstance(expected, dict):
        return found.keys() == expected.keys() and all(close(found[name], expected[name]) for name in expected)
    if isinstance(expected, list):
        return len(found) == len(expected) and all(map(close, found, expected))
    return found == (pytest.approx(expected, rel=1e-6, abs=1e-6) if isinstance(expected, float) else expected)


@pytest.mark.slow
@pytest.mark.parametrize("part", [name for name in sdk_program.PARTS if name not in ("custom", "chunks")])
def test_sdk_gets_the_numbers_of_the_local_client(part: str, remote: dict[str, Any], local: dict[str, Any]) -> None:
    assert close(remote[part], local[part]), f"{remote[part]}\n{local[part]}"


@pytest.mark.slow
def test_custom_loss_trains_as_in_one_process(remote: dict[str, Any], local: dict[str, Any]) -> None:
    """The SDK differentiates the loss on its side and sends weights: a second pass, with other last bits."""
    for found, expected in zip(remote["custom"], local["custom"], strict=True):
        assert found == pytest.approx(expected, rel=1e-4)
    assert remote["custom"][0][:2] == pytest.approx(local["custom"][0][:2], rel=1e-6)
    assert remote["custom"][2][0] < remote["custom"][0][0]


@pytest.mark.slow
def test_chunks_are_one_batch(remote: dict[str, Any], local: dict[str, Any]) -> None:
    """Sums of 2,200 datums in another order."""
    assert remote["chunks"] == pytest.approx(local["chunks"], rel=1e-5)
    assert remote["chunks"][1] == 2200


@pytest.mark.slow
def test_losses_by_their_formulas(remote: dict[str, Any]) -> None:
    """Sampler log-probability -6.5, advantage 0.75 for every token; r = exp(logp + 6.5)."""
    low, high, beta, advantage, sampled = 0.9, 1.1, 0.1, 0.75, -6.5

    def clipped(r: float) -> float:
        return min(max(r, low), high)

    formulas = {
        "cross_entropy": lambda lp: -lp,
        "importance_sampling": lambda lp: -math.exp(lp - sampled) * advantage,
        "ppo": lambda lp: -min(math.exp(lp - sampled) * advantage, clipped(math.exp(lp - sampled)) * advantage),
        "cispo": lambda lp: -clipped(math.exp(lp - sampled)) * lp * advantage,
        "dro": lambda lp: -(lp * advantage - 0.5 * beta * (lp - sampled) ** 2),
    }
    assert remote["losses"].keys() == formulas.keys()
    for name, formula in formulas.items():
        for loss, rows in zip(*(remote["losses"][name][what] for what in ("loss", "logprobs")), strict=True):
            terms = [
                weight * formula(lp)
                for row, (_, _, weights) in zip(rows, sdk_program.BATCH, strict=True)
                for lp, weight in zip(row, weights, strict=True)
                if weight
            ]
            assert loss == pytest.approx(sum(terms), rel=1e-5), name


@pytest.mark.slow
@pytest.mark.parametrize("version", [NEWEST, OLDEST])
def test_killed_server_is_started_again_in_mid_run(version: str, tmp_path: Path) -> None:
    with served(tmp_path) as (process, url):
        client = program(environment_of(version), url, "restart")
        assert client.stdin is not None
        assert client.stdout is not None
        assert client.stdout.readline() == "trained\n"
        process.kill()
        process.wait()
    with served(tmp_path, port=int(url.rpartition(":")[2])):
        output, errors = finish(client, "restarted\n")
    assert output, errors
    error, expected, found = json.loads(output.splitlines()[-1])
    assert "it was restarted" in error
    assert "create_training_client_from_state_with_optimizer(path)" in error
    assert found == expected


@pytest.mark.slow
def test_server_with_the_oldest_sdk(tmp_path: Path, local: dict[str, Any]) -> None:
    """It serves clients of its own version, and refuses the batches of newer ones with a message."""
    with served(tmp_path, environment=environment_of(OLDEST)) as (_, url):
        output, errors = finish(program(environment_of(OLDEST), url))
        _, newer = finish(program(ENVIRONMENT, url))
    assert output, errors
    assert close(json.loads(output.splitlines()[-1])["losses"], local["losses"])
    assert "the server's tinker package is older than the protobuf format of this SDK; upgrade it there" in newer
