"""tinker at both ends: everything else runs at the newest, and here the contract runs at the oldest supported version.

The old version is put in front of the installed one on the path of a second process, with what only it needs; nothing
installed changes.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

from .oldest_tinker import OLDEST, ROOT, oldest_tinker

SMOKE = """
import importlib.metadata, math
import mint_lab as ml
from mint_lab.types import AdamParams, ModelInput, SamplingParams

assert importlib.metadata.version("tinker") == "%s"
client = ml.ServiceClient().create_lora_training_client(base_model="mint-tiny", rank=4, seed=0)
data = ml.data.pairs_to_data(ml.data.arithmetic_pairs(4), client.get_tokenizer())
losses = []
for _ in range(4):
    output = client.forward_backward_custom(data, ml.LOSSES["pairwise_preference"].bind()).result()
    losses.append(output.metrics["loss"])
    assert client.optim_step(AdamParams(learning_rate=1e-2)).result().metrics["grad_norm"] > 0
assert math.isfinite(losses[0]) and losses[-1] < losses[0], losses
built_in = client.forward_backward(data, "cross_entropy").result()
assert built_in.loss_fn_outputs[1]["logprobs"].to_torch().shape == (data[1].model_input.length,)
sampler = client.save_weights_and_get_sampling_client()
prompt = ModelInput.from_ints(data[0].model_input.to_ints()[:-2])
sampled = sampler.sample(prompt, 2, SamplingParams(max_tokens=4, seed=0)).result()
assert [len(s.tokens) == len(s.logprobs) > 0 for s in sampled.sequences] == [True, True]
assert sampler.compute_logprobs(prompt).result()[0] is None
print("learned")
"""


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    return oldest_tinker()


@pytest.mark.slow
def test_the_data_contract_holds_at_the_oldest_version(environment: dict[str, str]) -> None:
    tests = ["tests/test_types.py", "tests/data/test_render.py", "tests/losses/test_spec.py"]
    tests.append("tests/contracts/test_tinker_surface.py")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_a_client_learns_at_the_oldest_version(environment: dict[str, str]) -> None:
    command = [sys.executable, "-c", SMOKE % OLDEST]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "learned"
