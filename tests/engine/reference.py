"""Reference numbers: transformers and peft alone, one sequence at a time, autograd, formulas as written.

The adapter is read from a saved checkpoint, so this also shows that other programs can load a checkpoint.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM


class Reference:
    """A transformers model with the adapter of ``checkpoint``; None for no adapter."""

    def __init__(self, model: Path, checkpoint: Path | None) -> None:
        base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
        with warnings.catch_warnings():  # peft's own: LoRA on a tied output layer, and its use of transformers
            warnings.simplefilter("ignore")
            self.model = base if checkpoint is None else PeftModel.from_pretrained(base, checkpoint, is_trainable=True)
        self.model.eval()

    def logprobs(self, tokens: Sequence[int], targets: Sequence[int]) -> torch.Tensor:
        """Return log-probabilities ``(N,)`` with a graph."""
        logits = self.model(input_ids=torch.tensor([list(tokens)]), use_cache=False).logits[0].float()
        return torch.log_softmax(logits, -1)[torch.arange(len(tokens)), torch.tensor(list(targets))]

    def loss_and_gradients(
        self, data: Sequence[Any], loss: Callable[[list[torch.Tensor]], torch.Tensor]
    ) -> tuple[float, list[torch.Tensor], dict[str, torch.Tensor]]:
        """Return value, log-probabilities, and the gradient of every LoRA parameter."""
        self.model.zero_grad()
        lists = [
            self.logprobs(d.model_input.to_ints(), d.loss_fn_inputs["target_tokens"].to_torch().tolist()) for d in data
        ]
        value = loss(lists)
        value.backward()
        gradients = {
            name.replace(".default.", "."): torch.zeros_like(p) if p.grad is None else p.grad.clone()
            for name, p in self.model.named_parameters()
            if "lora_" in name
        }
        return float(value.detach()), [lp.detach() for lp in lists], gradients


def made_by_peft(base: Path, folder: Path, **options: Any) -> Path:
    """Save an adapter that peft made, with random weights as after a training."""
    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft, about tied weights and transformers
        wrapped: Any = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **options))
        generator = torch.Generator().manual_seed(5)
        for name, parameter in wrapped.named_parameters():
            if "lora_" in name:
                parameter.data = 0.1 * torch.randn(parameter.shape, generator=generator)
        wrapped.save_pretrained(folder)
    return folder
