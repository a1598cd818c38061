"""The README's examples are run as they stand, and do what they say."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import mint_lab as ml
from mint_lab.types import ModelInput


def examples(root: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (root / "README.md").read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.slow
def test_the_example_learns(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(examples(root)[0], "README.md", "exec"), {})
    steps = [ast.literal_eval(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    assert len(steps) == 32
    first, last = (sum(step["pair_accuracy"] for step in part) / 5 for part in (steps[:5], steps[-5:]))
    assert last > first + 0.15


def logprobs(folder: Path, tokens: list[int]) -> torch.Tensor:
    """What transformers alone gives for each token after the first."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        rows = torch.log_softmax(model(input_ids=torch.tensor([tokens])).logits[0], -1)
    return rows[torch.arange(len(tokens) - 1), tokens[1:]]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning")  # peft's own use of transformers
def test_the_merged_model_is_the_trained_one(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (example,) = (text for text in examples(root) if "merge_and_unload" in text)
    monkeypatch.chdir(tmp_path)
    pairs = ml.data.arithmetic_pairs(48)
    run = ml.Run(data=pairs, steps=20, learning_rate=1e-2, rank=4, eval_every=20, folder=tmp_path / "run")
    assert run.start().wait(120)
    client = run.client
    data = ml.data.pairs_to_data(pairs[:1], client.get_tokenizer())
    tokens = [*data[0].model_input.to_ints(), int(data[0].loss_fn_inputs["target_tokens"].to_numpy()[-1])]
    exec(compile(example, "README.md", "exec"), {"run": run})
    sampler = client.save_weights_and_get_sampling_client()
    trained = torch.tensor(sampler.compute_logprobs(ModelInput.from_ints(tokens)).result()[1:])
    torch.testing.assert_close(logprobs(Path("merged"), tokens), trained, rtol=0, atol=1e-4)
    assert AutoTokenizer.from_pretrained("merged").decode(tokens) == client.get_tokenizer().decode(tokens)
    # Without the untying the numbers are far off, so it is what makes them right.
    tied = "".join(line for line in example.splitlines(keepends=True) if not line.startswith(("head", "model.config")))
    assert tied.count("\n") == example.count("\n") - 3
    with pytest.warns(UserWarning, match="tie_word_embeddings"):
        exec(compile(tied, "README.md", "exec"), {"run": run})
    assert (logprobs(Path("merged"), tokens) - trained).abs().max() > 0.1
