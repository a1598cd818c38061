"""``python -m tests.server.sdk_program URL``: training with the calls that the SDK and the local service both have.

The program runs every part against a server with whichever ``tinker`` is installed, and prints the results as JSON.
The test calls the same functions with the local service, and compares. ``... URL restart`` trains while the test kills
the server: it says on the standard output where it is, and waits for a line on the standard input.
"""

from __future__ import annotations

import concurrent.futures
import json
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = ["KEY", "PARTS"]

KEY = "tml-key-of-the-tests"
BATCH = [([5, 6, 7, 8], [6, 7, 8, 9], [0.0, 1.0, 1.0, 0.5]), ([9, 8, 7], [8, 7, 6], [0.0, 1.0, 1.0])]
LOSSES = {
    "cross_entropy": None,
    "importance_sampling": None,
    "ppo": {"clip_low_threshold": 0.9, "clip_high_threshold": 1.1},
    "cispo": {"clip_low_threshold": 0.9, "clip_high_threshold": 1.1},
    "dro": {"beta": 0.1},
}


def new_client(service: Any, **options: Any) -> Any:
    """Return a training client; newer SDKs return a future of it."""
    made = service.create_lora_training_client("mint-tiny", **{"rank": 4, "seed": 0, **options})
    return made.result() if hasattr(made, "result") else made


def ready(made: Any) -> Any:
    return made.result() if hasattr(made, "result") else made


def data(repeats: int = 1, **fields: Any) -> list[Any]:
    from tinker import types

    rows = []
    for tokens, targets, weights in BATCH * repeats:
        inputs = {"target_tokens": np.array(targets), "weights": np.array(weights, np.float32)}
        for name, value in fields.items():
            inputs[name] = np.full(len(tokens), value, np.float32)
        rows.append(types.Datum(model_input=types.ModelInput.from_ints(tokens), loss_fn_inputs=inputs))
    return rows


def step(client: Any, rate: float = 1e-2) -> Any:
    from tinker import types

    return client.optim_step(types.AdamParams(learning_rate=rate))


def logprobs(output: Any) -> list[list[float]]:
    return [np.asarray(row["logprobs"].to_numpy(), np.float64).tolist() for row in output.loss_fn_outputs]


def losses(service: Any) -> Any:
    """Each built-in loss: value and log-probabilities, one step, and again, submitted without waiting."""
    results = {}
    for name, config in LOSSES.items():
        client = new_client(service)
        fields = {} if name == "cross_entropy" else {"logprobs": -6.5, "advantages": 0.75}
        first = client.forward_backward(data(**fields), name, config)
        norm = step(client)
        second = client.forward(data(**fields), name, config)
        outputs = [first.result(), second.result()]
        results[name] = {
            "loss": [output.metrics["loss:sum"] for output in outputs],
            "logprobs": [logprobs(output) for output in outputs],
            "grad_norm": norm.result().metrics["grad_norm"],
        }
    return results


def coupled(rows: Any, pieces: Any) -> Any:
    """A loss of a person that does not separate into datums."""
    import torch

    scores = torch.stack([piece.sum() for piece in pieces])
    loss = scores.std() + 0.01 * scores.pow(2).mean()
    return loss, {"value": float(loss.detach()), "spread": float(scores.detach().std())}


def custom(service: Any) -> Any:
    client, found = new_client(service), []
    for _ in range(3):
        output = client.forward_backward_custom(data(), coupled).result()
        found.append([output.metrics["value"], output.metrics["spread"], step(client).result().metrics["grad_norm"]])
    return found


def chunks(service: Any) -> Any:
    """A batch that the SDK sends in several requests, of which the first arrives last."""
    client = new_client(service)
    output = client.forward_backward(data(repeats=1100), "cross_entropy").result()
    return [output.metrics["loss:sum"], len(output.loss_fn_outputs), step(client).result().metrics["grad_norm"]]


def checkpoints(service: Any) -> Any:
    """A training that continues from a checkpoint is the one that was not interrupted."""
    client = new_client(service)
    client.forward_backward(data(), "cross_entropy").result()
    step(client).result()
    path = client.save_state("state").result().path
    sampler_path = client.save_weights_for_sampler("sampler").result().path

    def go_on(client: Any) -> list[float]:
        found = []
        for _ in range(2):
            found.append(client.forward_backward(data(), "cross_entropy").result().metrics["loss:sum"])
            step(client).result()
        return found

    direct = go_on(client)
    again = go_on(ready(service.create_training_client_from_state_with_optimizer(path)))
    client.load_state(path).result()
    weights_only = go_on(client)
    sampler = ready(service.create_sampling_client(model_path=sampler_path))
    listed = service.create_rest_client().list_checkpoints(path.split("/")[2]).result().checkpoints
    return {
        "direct": direct,
        "again": again,
        "weights_only": weights_only,
        "samples": sample(sampler),
        "listed": sorted(checkpoint.checkpoint_id for checkpoint in listed),
        "info": [client.get_info().model_name, client.get_info().lora_rank],
    }


def sample(sampler: Any) -> Any:
    from tinker import types

    prompt = types.ModelInput.from_ints([5, 6, 7])
    response = sampler.sample(
        prompt, 3, types.SamplingParams(max_tokens=5, seed=3), include_prompt_logprobs=True, topk_prompt_logprobs=2
    ).result()
    return {
        "tokens": [list(s.tokens) for s in response.sequences],
        "logprobs": [list(s.logprobs) for s in response.sequences],
        "reasons": [s.stop_reason for s in response.sequences],
        "prompt": response.prompt_logprobs,
        "topk": response.topk_prompt_logprobs,
        "computed": sampler.compute_logprobs(prompt).result(),
    }


def sampling(service: Any) -> Any:
    """A snapshot does not change when training goes on."""
    client = new_client(service)
    snapshot = ready(client.save_weights_and_get_sampling_client())
    client.forward_backward(data(), "cross_entropy").result()
    step(client).result()
    later = ready(client.save_weights_and_get_sampling_client())
    base = ready(service.create_sampling_client(base_model="mint-tiny"))
    return [sample(base), sample(snapshot), sample(later)]


def bad_data(service: Any) -> Any:
    """A batch that cannot be trained on is an error, also as a part of a large batch, and the client stays usable."""
    from tinker import types

    client, found = new_client(service), []
    bad = types.Datum(
        model_input=types.ModelInput.from_ints([5, 99_999]), loss_fn_inputs={"target_tokens": np.array([6, 7])}
    )
    for batch in ([bad], [*data(repeats=550), bad, *data()]):
        try:
            client.forward_backward(batch, "cross_entropy").result(timeout=60)
            found.append("no error")
        except Exception as error:
            found.append("token id 99999 at position 1, expected 0 to 767" in str(error))
        found.append(client.forward(data(), "cross_entropy").result(timeout=60).metrics["loss:sum"])
    return found


def many_clients(service: Any) -> Any:
    """Eight clients train at the same time; each gets its own numbers."""

    def train(seed: int) -> list[float]:
        client = new_client(service, seed=seed)
        found = []
        for _ in range(3):
            found.append(client.forward_backward(data(), "cross_entropy").result().metrics["loss:sum"])
            step(client, 1e-2 * (seed + 1)).result()
        return found

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        return list(pool.map(train, range(8)))


PARTS: dict[str, Callable[[Any], Any]] = {
    part.__name__: part for part in (losses, custom, chunks, checkpoints, sampling, bad_data, many_clients)
}


def restart(service: Any) -> Any:
    """Train, lose the server, and continue from the checkpoint with the same service client."""
    client = new_client(service)
    client.forward_backward(data(), "cross_entropy").result()
    step(client).result()
    path = client.save_state("state").result().path
    expected = client.forward_backward(data(), "cross_entropy").result().metrics["loss:sum"]
    print("trained", flush=True)
    assert sys.stdin.readline() == "restarted\n"
    try:
        client.forward_backward(data(), "cross_entropy").result(timeout=90)
        error = "no error"
    except Exception as raised:
        error = str(raised)
    again = ready(service.create_training_client_from_state_with_optimizer(path))
    return [error, expected, again.forward_backward(data(), "cross_entropy").result().metrics["loss:sum"]]


def main() -> None:
    import tinker

    service = tinker.ServiceClient(base_url=sys.argv[1], api_key=KEY)
    if sys.argv[2:] == ["restart"]:
        found: Any = restart(service)
    else:
        found = {name: part(service) for name, part in PARTS.items()}
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
