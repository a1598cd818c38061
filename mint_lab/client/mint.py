r"""MinT's two calls beyond Tinker's, on this machine, with the signatures of its SDK (``mindlab-toolkit``).

``forward_backward_reverse_kl`` distils a teacher into a student over the whole vocabulary,
``interpolate_checkpoints`` adds up what several checkpoints have learnt. What the SDK leaves to the server is decided
here and written in the docstrings.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F

from ..engine.batch import check_tokens
from ..engine.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from ..errors import CheckpointError, ConfigError, DataError
from .futures import worker_of

if TYPE_CHECKING:
    from ..engine.head import Head
    from ..engine.models import Adapter, BaseModel
    from ..types import ModelInput, TensorData
    from .service import ServiceClient
    from .training import TrainingClient

__all__ = [
    "ForwardBackwardReverseKLResponse",
    "InterpolateCheckpointsResponse",
    "ReverseKLDatum",
    "ReverseKLItemOutput",
    "forward_backward_reverse_kl",
    "interpolate_checkpoints",
]


@dataclass(frozen=True)
class ReverseKLDatum:
    """One sequence as the student and as the reference see it.

    Attributes:
        student_input: ``N`` tokens; position i predicts ``target_tokens[i]``.
        reference_input: ``M`` tokens, which may have another prompt; its end has to be the student's, for the last
            positions of the two are compared.
        target_tokens, weights: ``(N,)``; a position of weight 0 adds nothing.
    """

    student_input: ModelInput
    reference_input: ModelInput
    target_tokens: TensorData
    weights: TensorData


@dataclass(frozen=True)
class ReverseKLItemOutput:
    """``loss``: the weighted divergence at each position of one datum, ``(N,)``, nats."""

    loss: TensorData


@dataclass(frozen=True)
class ForwardBackwardReverseKLResponse:
    """One output a datum; metrics ``loss:sum`` and ``reverse_kl:mean``, nats a token of weight other than 0."""

    outputs: list[ReverseKLItemOutput]
    metrics: dict[str, float]
    type: Literal["mint_forward_backward_reverse_kl"] = "mint_forward_backward_reverse_kl"


@dataclass(frozen=True)
class InterpolateCheckpointsResponse:
    """``path``: sampler weights, for ``create_sampling_client(model_path=...)``."""

    path: str
    source_paths: list[str]
    coefficients: list[float]
    checkpoint_type: Literal["sampler"] = "sampler"
    has_rank_shards: bool = False
    type: Literal["mint_interpolate_checkpoints"] = "mint_interpolate_checkpoints"


def forward_backward_reverse_kl(
    training_client: TrainingClient,
    *,
    reference_model_path: str,
    data: list[ReverseKLDatum],
    temperature: float = 1.0,
    seq_id: int | None = None,
) -> ForwardBackwardReverseKLResponse:
    r"""Value and gradient of the reverse divergence from a reference; the gradient is added to what has accumulated.

    .. math:: \sum_t w_t \sum_v p_t(v) \log \frac{p_t(v)}{q_t(v)}

    with p of the student and q of the reference, both softmax of logits / ``temperature``; a sum over tokens, not
    multiplied by the temperature's square. One sequence goes through the model at a time.

    Args:
        training_client: of this machine; its adapter is the student.
        reference_model_path: a checkpoint on the same base model, or the base model's name for the base model itself.
        data: a non-empty list.
        temperature: above 0.
        seq_id: the hosted service's; not used here.

    Raises:
        ConfigError: the temperature is no number above 0.
        CheckpointError: the reference is missing, damaged, or of another base model.
        DataError: a datum is not fit for the model, or its two inputs do not end alike. The gradient that had
            accumulated is as before then.
    """
    if isinstance(temperature, bool) or not isinstance(temperature, int | float) or not 0 < temperature < math.inf:
        raise ConfigError(f"temperature is {temperature!r}, expected a number above 0")
    if not data:
        raise DataError("the batch is empty, expected at least one ReverseKLDatum")
    student = training_client._adapter  # pyright: ignore[reportPrivateUsage]
    base = student.base
    rows = [_read(datum, index, base) for index, datum in enumerate(data)]
    reference: Checkpoint | None = None
    if reference_model_path != base.name:
        reference = load_checkpoint(
            training_client._paths.folder(reference_model_path)  # pyright: ignore[reportPrivateUsage]
        )
    return worker_of(base).run(lambda: _reverse_kl(student, reference, rows, float(temperature)))


@dataclass(frozen=True)
class _Row:
    student: list[int]
    reference: list[int]
    weights: torch.Tensor  # (N,)


def _read(datum: Any, index: int, base: BaseModel) -> _Row:
    student, reference = datum.student_input.to_ints(), datum.reference_input.to_ints()
    for tokens in (student, reference):
        check_tokens(tokens, base.vocab_size, base.context, index)
    targets, weights = (np.asarray(getattr(datum, name).to_numpy()) for name in ("target_tokens", "weights"))
    for name, values in (("target_tokens", targets), ("weights", weights)):
        if values.shape != (len(student),):
            raise DataError(f"shape {values.shape}, expected ({len(student)},)", index=index, field=name)
    if not np.isfinite(weights).all():
        raise DataError("holds a number that is not finite", index=index, field="weights")
    for place in np.flatnonzero(weights).tolist():
        there = place + len(reference) - len(student)
        for name, tokens, at in (("student_input", student, place), ("reference_input", reference, there)):
            follows = tokens[at + 1] if 0 <= at < len(tokens) - 1 else int(targets[place])
            if at < 0 or follows != targets[place]:
                raise DataError(
                    f"position {place} predicts token {int(targets[place])}, which does not follow position {at} here; "
                    "both inputs have to end with the same completion, less its last token",
                    index=index,
                    field=name,
                )
    return _Row(student, reference, torch.from_numpy(weights.astype(np.float32)))


def _reverse_kl(
    student: Adapter, reference: Checkpoint | None, rows: Sequence[_Row], temperature: float
) -> ForwardBackwardReverseKLResponse:
    from ..types import TensorData

    base, parameters = student.base, list(student.parameters.values())
    teacher: Adapter | None = None
    if reference is not None:
        teacher = base.attach(reference.shape, 0)
        reference.load_into(teacher)
    total = [torch.zeros_like(p) for p in parameters]
    outputs: list[ReverseKLItemOutput] = []
    divergence = counted = 0.0
    for row in rows:
        places = torch.nonzero(row.weights).flatten()
        loss = torch.zeros(len(row.student))
        if len(places):
            with torch.no_grad(), base.using(teacher):
                there = places + len(row.reference) - len(row.student)
                log_q = _log_softmax(base, row.reference, there, temperature)
            with base.using(student):
                log_p = _log_softmax(base, row.student, places, temperature)
                per_token = (log_p.exp() * (log_p - log_q)).sum(-1)  # (places,)
                weighted = per_token * row.weights[places].to(per_token)
                found = torch.autograd.grad(weighted.sum(), parameters, allow_unused=True)
            total = [t if g is None else t + g for t, g in zip(total, found, strict=True)]
            loss[places] = weighted.detach().cpu()
            divergence, counted = divergence + float(per_token.detach().sum()), counted + len(places)
        outputs.append(ReverseKLItemOutput(TensorData.from_torch(loss)))
    value = sum(float(output.loss.to_torch().sum()) for output in outputs)
    student.add_gradients(total)
    return ForwardBackwardReverseKLResponse(
        outputs, {"loss:sum": value, "reverse_kl:mean": divergence / max(counted, 1.0)}
    )


def _log_softmax(base: BaseModel, tokens: list[int], places: torch.Tensor, temperature: float) -> torch.Tensor:
    """Log-probabilities of the whole vocabulary at ``places``, ``(places, vocab)``, float32."""
    layout = base.layout([tokens])
    hidden = base.backbone(layout).flatten(0, 1)
    rows = torch.from_numpy(layout.token_index[0])[places].to(hidden.device)
    return torch.log_softmax(_logits(base.head(), hidden[rows])[:, : base.vocab_size] / temperature, dim=-1)


def _logits(head: Head, hidden: torch.Tensor) -> torch.Tensor:
    """``Head.logits`` with a graph; ``(places, vocab)``, float32, all of the vocabulary at once."""
    z = F.linear(hidden, head.weight, head.bias).float()
    if head.lora_a is not None and head.lora_b is not None:
        z = z + head.scaling * (hidden.float() @ head.lora_a.T) @ head.lora_b.T
    z = z * head.factor
    return torch.tanh(z / head.cap) * head.cap if head.cap else z


def interpolate_checkpoints(
    service_client: ServiceClient,
    *,
    source_paths: list[str],
    coefficients: list[float],
    output_path: str | None = None,
    output_checkpoint_type: Literal["sampler"] = "sampler",
) -> InterpolateCheckpointsResponse:
    r"""Sampler weights whose update of every layer is :math:`\sum_i c_i \Delta W_i`, exactly.

    Low-rank updates are products, so the factors cannot be averaged: they are laid side by side, and the new rank is
    the sum of the ranks. Coefficients need not add up to 1 and may be negative; those of 0 are left out.

    Args:
        service_client: of this machine.
        source_paths: checkpoints of one base model, with adapters on the same kinds of layers.
        coefficients: one a path.
        output_path: ``tinker://RUN/sampler_weights/NAME`` that is not taken yet; None for a new run's.
        output_checkpoint_type: "sampler", the only one there is.

    Raises:
        ConfigError: no paths, not one finite coefficient a path, all of them 0, or another type.
        CheckpointError: a source is missing, damaged or does not fit the others, or the output exists or cannot be
            written.
    """
    if output_checkpoint_type != "sampler":
        raise ConfigError(f"output_checkpoint_type is {output_checkpoint_type!r}, expected 'sampler'")
    if not source_paths or len(source_paths) != len(coefficients):
        raise ConfigError(f"{len(source_paths)} source_paths and {len(coefficients)} coefficients, expected one each")
    if not all(isinstance(c, int | float) and math.isfinite(c) for c in coefficients):
        raise ConfigError(f"coefficients are {coefficients!r}, expected finite numbers")
    if not any(coefficients):
        raise ConfigError("every coefficient is 0, which leaves the base model; sample from it directly")
    paths = service_client._paths  # pyright: ignore[reportPrivateUsage]
    target = output_path or paths.uri(f"interpolated-{uuid.uuid4().hex[:12]}", "sampler_weights", "final")
    paths.parts(target)
    paths.check_free(target, overwrite=False)
    sources = [
        (float(c), load_checkpoint(paths.folder(path)))
        for c, path in zip(coefficients, source_paths, strict=True)
        if c != 0
    ]
    merged = _merged(sources)
    base = service_client._base(merged.base_model)  # pyright: ignore[reportPrivateUsage]

    def save() -> None:
        adapter = base.attach(merged.shape, 0)
        merged.load_into(adapter)
        save_checkpoint(paths.folder(target), adapter, None)

    worker_of(base).run(save)
    return InterpolateCheckpointsResponse(target, list(source_paths), [float(c) for c in coefficients])


def _merged(sources: Sequence[tuple[float, Checkpoint]]) -> Checkpoint:
    _, first = sources[0]
    for _, other in sources[1:]:
        same_layers = replace(other.shape, rank=1) == replace(first.shape, rank=1)
        if other.base_model != first.base_model or not same_layers or other.weights.keys() != first.weights.keys():
            raise CheckpointError(
                f"checkpoints of {first.base_model!r} ({first.shape}) and {other.base_model!r} ({other.shape}) cannot "
                "be added up: expected one base model, and adapters on the same layers"
            )
    rank = sum(checkpoint.shape.rank for _, checkpoint in sources)
    weights: dict[str, torch.Tensor] = {}
    for name in first.weights:
        down = "lora_A" in name
        # An update is scaled by alpha / rank, and the rank is another one now.
        parts = [
            checkpoint.weights[name] * (1.0 if down else c * rank / checkpoint.shape.rank) for c, checkpoint in sources
        ]
        weights[name] = torch.cat(parts, dim=0 if down else 1)
    return Checkpoint(first.base_model, replace(first.shape, rank=rank), weights, None)
