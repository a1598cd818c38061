"""TRL's trainers as a second opinion on our losses: same model, same tokens, its own loss code.

A trainer is made as a user makes it, on the bundled model. The model that its loss code then calls is the real one with
one change: its output (per-token log-probabilities, or logits) is cut off as a leaf, so that TRL's gradient with
respect to it can be read.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from mint_lab.tiny import path
from mint_lab.types import Datum


def tokens_of(datum: Datum) -> list[int]:
    return [*datum.model_input.to_ints(), int(datum.loss_fn_inputs["target_tokens"].to_numpy()[-1])]


def prompt_length(datum: Datum) -> int:
    return int((datum.loss_fn_inputs["weights"].to_numpy() == 0).sum()) + 1


class Cut:
    """A model whose output ``name`` is a leaf of the graph: the one of its last call is ``leaf``."""

    def __init__(self, model: Any, name: str) -> None:
        self._model, self._name = model, name
        self.leaf = torch.empty(0)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with torch.no_grad():
            output = self._model(*args, **kwargs)
        self.leaf = getattr(output, self._name).clone().requires_grad_()
        setattr(output, self._name, self.leaf)
        return output

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


@dataclass(frozen=True)
class Opinion:
    """TRL's loss, its gradient, and what the gradient is with respect to (rows: all chosen, then all rejected)."""

    loss: float
    inputs: torch.Tensor
    gradient: torch.Tensor


class Peers:
    """The trainers, each made when it is first asked for; ``folder`` is theirs to write to."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @cached_property
    def reference(self) -> Any:
        from transformers import AutoModelForCausalLM

        return AutoModelForCausalLM.from_pretrained(path(), dtype=torch.float32).eval()

    @cached_property
    def policy(self) -> Any:
        """The reference with noise on every weight: some tenths of a nat a token away from it."""
        model = copy.deepcopy(self.reference)
        noise = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for weight in model.parameters():
                weight.add_(0.02 * torch.randn(weight.shape, generator=noise))
        return model

    @cached_property
    def tokenizer(self) -> Any:
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(path())

    @staticmethod
    def logits(model: Any, data: Sequence[Datum]) -> list[torch.Tensor]:
        """One datum at a time: ``(N_i, vocabulary)``."""
        with torch.no_grad():
            return [model(torch.tensor([d.model_input.to_ints()])).logits[0] for d in data]

    @classmethod
    def logprobs(cls, model: Any, data: Sequence[Datum]) -> list[torch.Tensor]:
        """Of the targets, ``(N_i,)``."""
        targets = [d.loss_fn_inputs["target_tokens"].to_torch()[:, None] for d in data]
        rows = zip(cls.logits(model, data), targets, strict=True)
        return [logits.log_softmax(-1).gather(1, target)[:, 0] for logits, target in rows]

    def _common(self) -> dict[str, Any]:
        return {
            "output_dir": str(self._folder),
            "use_cpu": True,
            "bf16": False,
            "report_to": "none",
            "disable_tqdm": True,
            "activation_checkpointing": False,
        }

    def _rows(self) -> Any:
        from datasets import Dataset

        return Dataset.from_list([{"prompt": "1+1=", "chosen": "2", "rejected": "3"}] * 2)

    @cached_property
    def _dpo(self) -> Any:
        from trl import DPOConfig, DPOTrainer

        return DPOTrainer(
            copy.deepcopy(self.policy),
            ref_model=copy.deepcopy(self.reference),
            args=DPOConfig(**self._common()),
            train_dataset=self._rows(),
            processing_class=self.tokenizer,
        )

    @cached_property
    def _kto(self) -> Any:
        from datasets import Dataset
        from trl import KTOConfig, KTOTrainer

        rows = [{"prompt": "1+1=", "completion": text, "label": text == "2"} for text in ("2", "3")]
        return KTOTrainer(
            copy.deepcopy(self.policy),
            ref_model=copy.deepcopy(self.reference),
            args=KTOConfig(**self._common(), per_device_train_batch_size=2),
            train_dataset=Dataset.from_list(rows),
            processing_class=self.tokenizer,
        )

    @cached_property
    def _cpo(self) -> Any:
        from trl.experimental.cpo import CPOConfig, CPOTrainer

        return CPOTrainer(
            copy.deepcopy(self.policy),
            args=CPOConfig(**self._common()),
            train_dataset=self._rows(),
            processing_class=self.tokenizer,
        )

    @cached_property
    def _orpo(self) -> Any:
        from trl.experimental.orpo import ORPOConfig, ORPOTrainer

        return ORPOTrainer(
            copy.deepcopy(self.policy),
            args=ORPOConfig(**self._common()),
            train_dataset=self._rows(),
            processing_class=self.tokenizer,
        )

    @cached_property
    def _grpo(self) -> Any:
        from datasets import Dataset
        from trl import GRPOConfig, GRPOTrainer

        return GRPOTrainer(
            copy.deepcopy(self.policy),
            reward_funcs=lambda completions, **_: [0.0] * len(completions),
            args=GRPOConfig(
                **self._common(), per_device_train_batch_size=2, num_generations=2, use_bias_correction_kl=False
            ),
            train_dataset=Dataset.from_list([{"prompt": "1+1="}] * 2),
            processing_class=self.tokenizer,
        )

    def dpo(self, data: Sequence[Datum], loss_type: str, beta: float, label_smoothing: float = 0.0) -> Opinion:
        """Of per-token log-probabilities, ``(2 n, tokens)``."""
        trainer = self._dpo
        trainer.loss_types, trainer.loss_weights = [loss_type], [1.0]
        trainer.beta, trainer.label_smoothing = beta, label_smoothing
        rows = []
        for chosen, rejected in zip(data[0::2], data[1::2], strict=True):
            prompt = prompt_length(chosen)
            ids = tokens_of(chosen)
            rows.append(
                {"prompt_ids": ids[:prompt], "chosen_ids": ids[prompt:], "rejected_ids": tokens_of(rejected)[prompt:]}
            )
        model = Cut(trainer.model, "log_probs")
        loss = trainer._compute_loss(model, trainer.data_collator(rows), False)
        loss.backward()
        return Opinion(float(loss.detach()), model.leaf.detach(), model.leaf.grad)

    def kto(
        self, data: Sequence[Datum], beta: float, desirable: float, undesirable: float, *, swapped: bool
    ) -> Opinion:
        """Of per-token log-probabilities, with the completions of the batch itself as those the KL is estimated on.

        Rows are in the order of the data if these have labels, otherwise all chosen before all rejected.

        ``swapped`` trains the reference and measures against the policy.
        """
        trainer = self._kto
        weights = [self.policy.state_dict(), self.reference.state_dict()]
        trainer.model.load_state_dict(weights[swapped])
        trainer.ref_model.load_state_dict(weights[not swapped])
        trainer.beta, trainer.desirable_weight, trainer.undesirable_weight = beta, desirable, undesirable
        rows = []
        judged = [(True, datum) for datum in data[0::2]] + [(False, datum) for datum in data[1::2]]
        if "label" in data[0].loss_fn_inputs:
            judged = [(bool(datum.loss_fn_inputs["label"].to_numpy().item()), datum) for datum in data]
        for label, datum in judged:
            prompt, ids = prompt_length(datum), tokens_of(datum)
            own = ids[prompt:]
            rows.append({"prompt_ids": ids[:prompt], "completion_ids": own, "KL_completion_ids": own, "label": label})
        model = Cut(trainer.model, "log_probs")
        loss = trainer._compute_loss(model, trainer.data_collator(rows), False)
        loss.backward()
        return Opinion(float(loss.detach()), model.leaf.detach(), model.leaf.grad)

    def cpo(self, data: Sequence[Datum], loss_type: str, beta: float, alpha: float, gamma: float = 0.0) -> Opinion:
        """Of logits, ``(2 n, tokens + 1, vocabulary)``."""
        trainer = self._cpo
        trainer.loss_type, trainer.beta, trainer.cpo_alpha, trainer.simpo_gamma = loss_type, beta, alpha, gamma
        return self._of_logits(trainer, data)

    def orpo(self, data: Sequence[Datum], beta: float) -> Opinion:
        """Of logits, ``(2 n, tokens + 1, vocabulary)``."""
        trainer = self._orpo
        trainer.beta = beta
        return self._of_logits(trainer, data)

    def _of_logits(self, trainer: Any, data: Sequence[Datum]) -> Opinion:
        batch = {}
        for name, side in (("chosen", data[0::2]), ("rejected", data[1::2])):
            ids = [torch.tensor(tokens_of(d)) for d in side]
            labels = [row.clone() for row in ids]
            for row, datum in zip(labels, side, strict=True):
                row[: prompt_length(datum)] = -100
            batch[f"{name}_input_ids"] = pad_sequence(ids, batch_first=True)
            batch[f"{name}_attention_mask"] = pad_sequence([torch.ones_like(row) for row in ids], batch_first=True)
            batch[f"{name}_labels"] = pad_sequence(labels, batch_first=True, padding_value=-100)
        model = Cut(trainer.model, "logits")
        loss, _ = trainer.get_batch_loss_metrics(model, batch)
        loss.backward()
        return Opinion(float(loss.detach()), model.leaf.detach(), model.leaf.grad)

    def grpo(self, data: Sequence[Datum], logprobs: Sequence[torch.Tensor], **settings: Any) -> Opinion:
        """Of per-token log-probabilities of the completions alone, ``(samples, tokens)``."""
        trainer = self._grpo
        for name, value in settings.items():
            setattr(trainer, name, value)
        trainer.current_gradient_accumulation_steps = 1

        def completions(rows: Sequence[torch.Tensor]) -> torch.Tensor:
            own = [row[prompt_length(d) - 1 :] for row, d in zip(rows, data, strict=True)]
            return pad_sequence(own, batch_first=True)

        def field(name: str) -> torch.Tensor:
            return completions([d.loss_fn_inputs[name].to_torch() for d in data])

        leaf = completions(logprobs).clone().requires_grad_()
        trainer._get_per_token_logps_and_entropies = lambda *_, **__: (leaf, torch.zeros_like(leaf), None)
        ids = torch.zeros_like(leaf, dtype=torch.long)
        inputs = {
            "prompt_ids": ids[:, :1],
            "prompt_mask": torch.ones_like(ids[:, :1]),
            "completion_ids": ids,
            "completion_mask": field("weights"),
            "advantages": field("advantages")[:, 0],
            "old_per_token_logps": field("logprobs"),
            "ref_per_token_logps": field("reference_logprobs"),
        }
        loss = trainer._compute_loss(None, inputs)
        loss.backward()
        return Opinion(float(loss.detach()), leaf.detach(), leaf.grad)
