"""Programs that end while something still runs: each is a forked copy of this process, which has imported everything.

``python -m tests.ending FOLDER CASE...`` prints one JSON object a line: the case, its exit status (negative: the signal
that ended it), and what it wrote to stderr.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mint_lab as ml
from mint_lab.types import AdamParams, Datum, ModelInput, SamplingParams

STEPS = 10_000


def batch(size: int) -> list[Datum]:
    """Return ``size`` datums of 99 tokens."""
    tokens = [5 + i % 60 for i in range(100)]
    inputs: dict[str, Any] = {"target_tokens": tokens[1:], "weights": [1.0] * 99}
    return [Datum(model_input=ModelInput.from_ints(tokens[:-1]), loss_fn_inputs=dict(inputs)) for _ in range(size)]


def client() -> Any:
    """Return a new training client."""
    return ml.ServiceClient(Path.cwd() / "home").create_lora_training_client("mint-tiny", rank=4, seed=0)


def endless(data: Any, logprobs: Any) -> Any:
    """Compute without end."""
    total = logprobs[0].sum()
    while True:
        total = total + logprobs[0].sum()


def stubborn(data: Any, logprobs: Any) -> Any:
    """Compute without end, and swallow every ``Exception``."""
    while True:
        try:
            endless(data, logprobs)
        except Exception:
            continue


def asleep(data: Any, logprobs: Any) -> Any:
    """Stay in C code."""
    lock = threading.Lock()
    for _ in range(2):
        lock.acquire()


def submitted(loss: Callable[..., Any]) -> Callable[[], object]:
    return lambda: client().forward_backward_custom(batch(2), loss)


def run(**options: Any) -> ml.Run:
    """Return a run that will not end by itself, and whose loss can be any."""
    return ml.Run(steps=STEPS, rank=4, folder=Path.cwd() / "run", max_rows=60, **options)


def begun(training: ml.Run, steps: int = 1) -> ml.Run:
    """Start a run, and return when it has completed some steps."""
    training.start()
    while training.steps_done < steps and training.error is None:
        training.wait(0.05, check=False)
    return training


def several_calls_and_a_save() -> None:
    training = client()
    for _ in range(3):
        training.forward_backward(batch(4), "cross_entropy")
        training.optim_step(AdamParams(learning_rate=1e-3))
    training.save_state("last")
    for _ in range(500):
        training.forward_backward(batch(64), "cross_entropy")


def samples() -> None:
    sampler = client().save_weights_and_get_sampling_client()
    prompt = ModelInput.from_ints([5, 6, 7])
    sampler.sample(prompt, num_samples=64, sampling_params=SamplingParams(max_tokens=200, stop=[]))


def page() -> None:
    bench = ml.Workbench(steps=STEPS, rank=4, folder=Path.cwd() / "run", max_rows=60, eval_every=1)
    begun(bench.run)
    bench._on_idle()
    bench._inspection.request({})


def exit_status_3() -> None:
    begun(run())
    client().forward_backward(batch(64), "cross_entropy")
    sys.exit(3)


def an_error() -> None:
    client().forward_backward(batch(64), "cross_entropy")
    raise ValueError("the program failed")


CASES: dict[str, Callable[[], object]] = {
    **{
        f"batch of {n}": (lambda n=n: client().forward_backward(batch(n), "cross_entropy")) for n in (1, 4, 16, 64, 256)
    },
    "samples": samples,
    "several calls and a save": several_calls_and_a_save,
    "endless loss": submitted(endless),
    "stubborn loss": submitted(stubborn),
    "sleeping loss": submitted(asleep),
    "loading run": lambda: run().start(),
    "run with snapshots": lambda: begun(run(eval_every=1), 2),
    "stopped run": lambda: begun(run()).stop(),
    "run with an endless loss": lambda: run(loss=endless).start(),
    "page": page,
    "exit status 3": exit_status_3,
    "error": an_error,
}


def measure(case: str, folder: Path) -> dict[str, Any]:
    """Fork, and return how the copy ended; in the copy, do what the case says and return nothing."""
    place = folder / case.replace(" ", "_")
    place.mkdir()
    child = os.fork()
    if not child:
        os.chdir(place)
        errors = os.open("stderr", os.O_WRONLY | os.O_CREAT)
        os.dup2(errors, 2)
        CASES[case]()
        return {}
    _, status = os.waitpid(child, 0)
    return {"case": case, "status": os.waitstatus_to_exitcode(status), "stderr": (place / "stderr").read_text()}


def main(folder: Path, cases: list[str]) -> None:
    """Measure the cases; in a copy, return at once, so that it ends as any program."""
    client().forward_backward(batch(1), "cross_entropy").result()  # imports what is imported late
    ml.Workbench().close()
    gc.collect()
    for case in cases or CASES:
        result = measure(case, folder)
        if not result:
            return
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
