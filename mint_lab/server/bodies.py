"""The JSON bodies of requests without a batch. Fields that are not listed are ignored, as the hosted service does."""

from __future__ import annotations

from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import ConfigError
from .wire import read_json

__all__ = [
    "Body",
    "CreateModel",
    "CreateSamplingSession",
    "FetchResult",
    "LoadWeights",
    "OfModel",
    "OfSession",
    "OptimStep",
    "SampleBody",
    "SaveForSampler",
    "SaveWeights",
    "WeightsInfo",
]

MAX_SAMPLES = 4096  # of one request
Count = Field(ge=0, lt=1 << 63)


class Body(BaseModel):
    """A JSON body."""

    model_config = ConfigDict(extra="ignore", protected_namespaces=(), hide_input_in_errors=False)

    @classmethod
    def read(cls, body: bytes) -> Self:
        """Return the body with its fields checked.

        Raises:
            ConfigError: If it is not a JSON object, or fields are missing or of another kind; all of them are named.
        """
        try:
            return cls.model_validate(read_json(body))
        except ValidationError as error:
            problems = [_problem(dict(item)) for item in error.errors(include_url=False, include_context=False)]
            raise ConfigError("; ".join(problems)) from None


def _problem(item: dict[str, Any]) -> str:
    found = repr(item["input"])
    found = found if len(found) <= 60 else f"{found[:57]}..."
    place = ".".join(map(str, item["loc"]))
    return f"{place}: missing" if item["type"] == "missing" else f"{place}: {item['msg']}, found {found}"


class OfSession(Body):
    """A request of a session."""

    session_id: str


class LoraSettings(Body):
    """The adapter of a new model; the defaults are the SDK's."""

    rank: int = 32
    seed: int | None = None
    train_unembed: bool = True
    train_mlp: bool = True
    train_attn: bool = True


class OptimizerSettings(Body):
    """The optimizer of a new model."""

    type: str = "adamw"


class CreateModel(OfSession):
    """``create_model``."""

    model_seq_id: int = Count
    base_model: str
    lora_config: LoraSettings | None = None
    optimizer_config: OptimizerSettings | None = None


class OfModel(Body):
    """A request of a model, in the order of ``seq_id``."""

    model_id: str
    seq_id: int | None = Field(None, ge=0, lt=1 << 63)


class OptimStep(OfModel):
    """``optim_step``: newer SDKs name the settings of another optimizer ``optimizer_params``."""

    adam_params: dict[str, Any] | None = None
    optimizer_params: dict[str, Any] | None = None


class SaveWeights(OfModel):
    """``save_weights``; ``path`` is the name of the checkpoint."""

    path: str | None = None
    overwrite: bool = False


class SaveForSampler(OfModel):
    """``save_weights_for_sampler``: with a name into a checkpoint, without one into the memory of the server."""

    path: str | None = None
    sampling_session_seq_id: int | None = Field(None, ge=0, lt=1 << 63)
    kind: str = "snapshot"


class LoadWeights(Body):
    """``load_weights``: into a model, or, from SDK 0.25 on, into a new model of a session."""

    path: str
    optimizer: bool
    model_id: str | None = None
    seq_id: int | None = Field(None, ge=0, lt=1 << 63)
    session_id: str | None = None
    model_seq_id: int | None = Field(None, ge=0, lt=1 << 63)
    base_model: str | None = None
    optimizer_config: OptimizerSettings | None = None


class CreateSamplingSession(OfSession):
    """``create_sampling_session``: of a base model, or of saved weights."""

    sampling_session_seq_id: int = Count
    base_model: str | None = None
    model_path: str | None = None


class SampleBody(Body):
    """``asample``. What follows ``topk_prompt_logprobs`` is not available and must keep its default."""

    sampling_session_id: str
    seq_id: int | None = Field(None, ge=0, lt=1 << 63)
    num_samples: int = Field(1, le=MAX_SAMPLES)
    prompt: Any
    sampling_params: dict[str, Any]
    prompt_logprobs: bool | None = None
    topk_prompt_logprobs: int = 0
    topk_sample_logprobs: int = 0
    target_prompt_logprobs: Any = None
    prompt_alt_tokens_k: int = 0
    prompt_logprobs_last_n: int | None = None


class FetchResult(Body):
    """``retrieve_future``."""

    request_id: str


class WeightsInfo(Body):
    """``weights_info``."""

    tinker_path: str
