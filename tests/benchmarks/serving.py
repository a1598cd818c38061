"""What ``mint-lab serve`` adds to a step: the SDK and a server process on this machine, against the local client."""

from __future__ import annotations

import gc
import os
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mint_lab as ml
from mint_lab.types import AdamParams

from ..server.process import served
from ..server.sdk_program import KEY, new_client
from .engine import Row, make_row
from .timing import alternate

__all__ = ["served_against_local"]


def served_against_local(rounds: int, pairs: int) -> list[Row]:
    """Measure steps of the bundled model, each submitted before the result of the one before it, as the API intends."""
    os.environ.setdefault("TINKER_TELEMETRY", "0")
    import tinker

    with tempfile.TemporaryDirectory() as folder, served(Path(folder)) as (_, url), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of SDKs that are about to return futures of clients
        service = tinker.ServiceClient(base_url=url, api_key=KEY)
        remote = new_client(service)
        local = new_client(ml.ServiceClient(Path(folder) / "local"))
        data = ml.data.pairs_to_data(ml.data.arithmetic_pairs(pairs, seed=0), local.get_tokenizer())
        found = alternate({"served": _steps(remote, data), "local": _steps(local, data)}, rounds)
        service.close("success").result()
        # The SDK leaves its sockets to the garbage collector, which would warn later.
        warnings.simplefilter("ignore", ResourceWarning)
        del remote, service
        gc.collect()
    return [make_row("a step over mint-lab serve / local step", found["served"], found["local"], "at most 1.10")]


def _steps(client: Any, data: list[Any], steps: int = 4) -> Callable[[], None]:
    def run() -> None:
        pending = []
        for _ in range(steps):
            pending += [
                client.forward_backward(data, "cross_entropy"),
                client.optim_step(AdamParams(learning_rate=1e-3)),
            ]
        for future in pending:
            future.result()

    return run
