r"""MinT's two calls beyond Tinker's, on this machine, with the signatures of its SDK (``mindlab-toolkit``).

``forward_backward_reverse_kl`` distils a teacher into a student over the whole vocabulary. ``interpolate_checkpoints``
adds the weight updates of several checkpoints. The docstrings define what the SDK leaves to the server.
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
    from ..engine.lora_dropout import LoraDropout
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
    """One sequence as the student and as the reference receive it.

    Attributes:
        student_input: ``N`` tokens; position i predicts ``target_tokens[i]``.
        reference_input: ``M`` tokens. The prompt may be another one, but the end must be the student's, because the
            last positions of the two inputs are compared.
        target_tokens: ``(N,)``.
        weights: ``(N,)``; a position of weight 0 contributes nothing.
    """

    student_input: ModelInput
    reference_input: ModelInput
    target_tokens: TensorData
    weights: TensorData


@dataclass(frozen=True)
class ReverseKLItemOutput:
    """The result for one datum.

    Attributes:
        loss: The weighted divergence at each position, ``(N,)``, nats.
    """

    loss: TensorData


@dataclass(frozen=True)
class ForwardBackwardReverseKLResponse:
    """The result of :func:`forward_backward_reverse_kl`.

    Attributes:
        outputs: One output for each datum.
        metrics: ``loss:sum``, nats, and ``reverse_kl:mean``, nats a token whose weight is not 0, unweighted.
    """

    outputs: list[ReverseKLItemOutput]
    metrics: dict[str, float]
    type: Literal["mint_forward_backward_reverse_kl"] = "mint_forward_backward_reverse_kl"


@dataclass(frozen=True)
class InterpolateCheckpointsResponse:
    """The result of :func:`interpolate_checkpoints`.

    Attributes:
        path: Path of the new sampler weights, for ``create_sampling_client(model_path=...)``.
        source_paths: The checkpoints that were added.
        coefficients: Their coefficients.
    """

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
    r"""Compute the reverse KL divergence from a reference, and add its gradient to the accumulated one.

    .. math:: \sum_t w_t \sum_v p_t(v) \log \frac{p_t(v)}{q_t(v)}

    Here p is the student's distribution and q the reference's, each the softmax of logits / ``temperature``. The sum
    over tokens is not multiplied by the square of the temperature. Sequences run through the model one at a time.

    Args:
        training_client: A local client; its adapter is the student.
        reference_model_path: A checkpoint on the same base model; the base model's name for the base model itself.
        data: A non-empty list.
        temperature: Above 0.
        seq_id: Used by the hosted service only.

    Raises:
        ConfigError: If the temperature is not a number above 0.
        CheckpointError: If the reference is missing, damaged, or of another base model.
        DataError: If the list is empty, the model cannot process a datum, or its two inputs do not end alike. The
            accumulated gradient is unchanged then.
    """
    if isinstance(temperature, bool) or not isinstance(temperature, int | float) or not 0 < temperature < math.inf:
        raise ConfigError(f"temperature is {temperature!r}, expected a number above 0")
    if not data:
        raise DataError("the batch is empty, expected at least one ReverseKLDatum")
    student = training_client._adapter  # pyright: ignore[reportPrivateUsage]
    base = student.base
    rows = [_read_datum(datum, index, base) for index, datum in enumerate(data)]
    reference: Checkpoint | None = None
    if reference_model_path != base.name:
        reference = load_checkpoint(
            training_client._paths.folder(reference_model_path)  # pyright: ignore[reportPrivateUsage]
        )
    return worker_of(base).run(lambda: _reverse_kl(student, reference, rows, float(temperature)))


@dataclass(frozen=True)
class _Row:
    """A checked datum: input tokens of student, ``N``, and reference, ``M``, and weights ``(N,)``."""

    student: list[int]
    reference: list[int]
    weights: torch.Tensor


def _read_datum(datum: Any, index: int, base: BaseModel) -> _Row:
    """Check a datum."""
    student, reference = datum.student_input.to_ints(), datum.reference_input.to_ints()
    for tokens in (student, reference):
        check_tokens(tokens, base.vocab_size, base.context, index)
    targets, weights = (np.asarray(getattr(datum, name).to_numpy()) for name in ("target_tokens", "weights"))
    for name, values in (("target_tokens", targets), ("weights", weights)):
        if values.shape != (len(student),):
            raise DataError(f"shape {values.shape}, expected ({len(student)},)", index=index, field=name)
    if not np.isfinite(weights).all():
        raise DataError("has a value that is not finite", index=index, field="weights")
    # At each weighted position, the target must be the next input token of both sequences; the last position has none.
    for position in np.flatnonzero(weights).tolist():
        reference_position = position + len(reference) - len(student)
        for name, tokens, at in (
            ("student_input", student, position),
            ("reference_input", reference, reference_position),
        ):
            next_token = tokens[at + 1] if 0 <= at < len(tokens) - 1 else int(targets[position])
            if at < 0 or next_token != targets[position]:
                raise DataError(
                    f"position {position} predicts token {int(targets[position])}, which does not follow position {at} "
                    "here; both inputs must end with the same completion, without its last token",
                    index=index,
                    field=name,
                )
    return _Row(student, reference, torch.from_numpy(weights.astype(np.float32)))


def _reverse_kl(
    student: Adapter, reference: Checkpoint | None, rows: Sequence[_Row], temperature: float
) -> ForwardBackwardReverseKLResponse:
    from ..types import TensorData

    base, parameters = student.base, list(student.parameters.values())
    teacher: Adapter | None = None  # None stands for the base model
    if reference is not None:
        teacher = base.attach(reference.lora, 0)
        reference.load_into(teacher)
    grads = [torch.zeros_like(p) for p in parameters]
    outputs: list[ReverseKLItemOutput] = []
    divergence = n_tokens = 0.0
    for number, row in enumerate(rows):
        positions = torch.nonzero(row.weights).flatten()
        loss = torch.zeros(len(row.student))  # (N,)
        if len(positions):
            with torch.no_grad(), base.using(teacher):
                reference_positions = positions + len(row.reference) - len(row.student)
                log_q = _log_softmax(base, row.reference, reference_positions, temperature)
            with base.using(student):
                dropout = student.dropout(number)
                log_p = _log_softmax(base, row.student, positions, temperature, dropout)  # (positions, vocab)
                per_token = (log_p.exp() * (log_p - log_q)).sum(-1)  # (positions,)
                weighted = per_token * row.weights[positions].to(per_token)
                row_grads = torch.autograd.grad(weighted.sum(), parameters, allow_unused=True)
            grads = [total if g is None else total + g for total, g in zip(grads, row_grads, strict=True)]
            loss[positions] = weighted.detach().cpu()
            divergence, n_tokens = divergence + float(per_token.detach().sum()), n_tokens + len(positions)
        outputs.append(ReverseKLItemOutput(TensorData.from_torch(loss)))
    value = sum(float(output.loss.to_torch().sum()) for output in outputs)
    student.add_gradients(grads)
    student.dropout_passes += 1
    return ForwardBackwardReverseKLResponse(
        outputs, {"loss:sum": value, "reverse_kl:mean": divergence / max(n_tokens, 1.0)}
    )


def _log_softmax(
    base: BaseModel, tokens: list[int], positions: torch.Tensor, temperature: float, dropout: LoraDropout | None = None
) -> torch.Tensor:
    """Compute log-probabilities of the whole vocabulary at some positions, ``(positions, vocab)``, float32."""
    layout = base.layout([tokens])
    hidden = base.backbone(layout, dropout=dropout).flatten(0, 1)  # (tokens, hidden)
    mask = base.head_dropout(dropout, hidden)
    rows = torch.from_numpy(layout.token_index[0])[positions].to(hidden.device)
    logits = _logits(base.head(), hidden[rows], None if mask is None else mask[rows])
    return torch.log_softmax(logits[:, : base.vocab_size] / temperature, dim=-1)


def _logits(head: Head, hidden: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Compute what ``Head.logits`` does with a graph, for the whole vocabulary at once: ``(positions, vocab)``."""
    z = F.linear(hidden, head.weight, head.bias).float()
    if head.lora_a is not None and head.lora_b is not None:
        kept = hidden.float() if mask is None else hidden.float() * mask
        z = z + head.scaling * (kept @ head.lora_a.T) @ head.lora_b.T
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
    r"""Save sampler weights whose update of every layer is exactly :math:`\sum_i c_i \Delta W_i`.

    A low-rank update is a product, so its factors cannot be averaged. They are concatenated instead, and the new rank
    is the sum of the ranks. Coefficients need not add up to 1 and may be negative; a source of coefficient 0 is left
    out.

    Args:
        service_client: A local service.
        source_paths: Checkpoints of one base model, with adapters on the same kinds of layers.
        coefficients: One for each path.
        output_path: A path ``tinker://RUN/sampler_weights/NAME`` that does not exist yet; None for one of a new run.
        output_checkpoint_type: "sampler"; there is no other.

    Raises:
        ConfigError: If there are no paths, the coefficients are not one finite number for each path or are all 0, or
            another type is requested.
        CheckpointError: If a source is missing, damaged or does not fit the others, or the output exists or cannot be
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
    paths.parse(target)
    paths.check_free(target, overwrite=False)
    sources = [
        (float(c), load_checkpoint(paths.folder(path)))
        for c, path in zip(coefficients, source_paths, strict=True)
        if c != 0
    ]
    merged = _concatenate(sources)
    base = service_client._base(merged.base_model)  # pyright: ignore[reportPrivateUsage]

    def save() -> None:
        adapter = base.attach(merged.lora, 0)
        merged.load_into(adapter)
        save_checkpoint(paths.folder(target), adapter, None)

    worker_of(base).run(save)
    return InterpolateCheckpointsResponse(target, list(source_paths), [float(c) for c in coefficients])


def _concatenate(sources: Sequence[tuple[float, Checkpoint]]) -> Checkpoint:
    """Return the checkpoint whose update is the weighted sum of the sources' updates."""
    _, first = sources[0]
    for _, other in sources[1:]:
        if other.base_model != first.base_model or other.weights.keys() != first.weights.keys():
            raise CheckpointError(
                f"checkpoints of {first.base_model!r} ({first.lora}) and {other.base_model!r} ({other.lora}) cannot "
                "be added: expected one base model, and adapters on the same layers"
            )
    lora = replace(first.lora, rank=sum(checkpoint.lora.rank for _, checkpoint in sources))
    weights: dict[str, torch.Tensor] = {}
    for name in first.weights:
        is_a = "lora_A" in name
        factors: list[torch.Tensor] = []
        for c, checkpoint in sources:
            # PEFT stacks the factors of all experts of a mixture: A is (experts * rank, in), B (out, rank * experts).
            # Any other layer is one expert.
            factor, rank = checkpoint.weights[name], checkpoint.lora.rank
            if is_a:
                factors.append(factor.reshape(-1, rank, factor.shape[1]))  # (experts, rank, in)
            else:  # B has the coefficient, and makes up for the new scale
                scaled = factor * (c * checkpoint.lora.scaling / lora.scaling)
                factors.append(scaled.reshape(len(factor), rank, -1))  # (out, rank, experts)
        joined = torch.cat(factors, dim=1)
        weights[name] = joined.flatten(0, 1) if is_a else joined.flatten(1)
    return Checkpoint(first.base_model, lora, weights, None)
