"""Base models, and the LoRA adapters attached to them.

Several training clients share one copy of a base model. Each client owns one adapter (``peft``), and at most one
adapter is active at a time. A snapshot for sampling is a copy of an adapter's tensors, which replaces them for the
duration of a call.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import secrets
import threading
import weakref
from collections.abc import Callable, Generator, Sequence
from typing import Any

import torch
from torch import nn

from ..errors import ConfigError, ModelError
from .attention import plan_attention, use_packed_attention
from .family_probes import check_causal, check_head, packs_exactly
from .fused_layers import fuse, merged
from .gradient_checkpointing import checkpoint_layers, checkpointable_layers
from .head import Head, head_of
from .kv_cache import cache_argument, layer_configs, query_heads
from .logprobs import chunk_positions
from .lora import (
    LORA_ALPHA,
    LoraShape,
    linear_layers,
    stacked_experts,
    suppress_peft_warnings,
    target_modules,
    target_parameters,
    without_lora,
)
from .memory import MemoryCost
from .packing import Layout, pack, pad, stored_tokens
from .pretrained import canonical_name, load_pretrained, resolve_source
from .text_model import context_of, end_tokens_of

__all__ = ["Adapter", "BaseModel", "LoraShape", "Weights", "load_base", "pick_device", "pick_dtype"]

# Largest hidden size with which one CPU thread is faster than two.
SINGLE_THREAD_HIDDEN_SIZE = 256

Weights = dict[str, torch.Tensor]


class Adapter:
    """One LoRA adapter on a base model.

    Attributes:
        base: The base model.
        name: PEFT's name of the adapter on that model.
        shape: Its rank and the kinds of layers it is on.
        parameters: Its parameters by the names in PEFT's files, float32, in a fixed order.
        gradients: The accumulated gradient of each parameter, in that order; None if there is none.
    """

    def __init__(self, base: BaseModel, name: str, shape: LoraShape, parameters: dict[str, nn.Parameter]) -> None:
        self.base = base
        self.name = name
        self.shape = shape
        self.parameters = parameters
        self.gradients: list[torch.Tensor] | None = None

    def add_gradients(self, gradients: list[torch.Tensor]) -> None:
        """Add ``gradients``, in the order of ``parameters``, to the accumulated ones."""
        if self.gradients is None:
            self.gradients = gradients
        else:
            self.gradients = [a + b for a, b in zip(self.gradients, gradients, strict=True)]

    def copy(self) -> Weights:
        """Return a copy of the current weights by PEFT's names."""
        return {name: p.detach().clone() for name, p in self.parameters.items()}

    def load(self, weights: Weights) -> None:
        """Overwrite the weights.

        Raises:
            ModelError: If names or shapes differ. Nothing is changed then.
        """
        expected = {name: tuple(p.shape) for name, p in self.parameters.items()}
        given = {name: tuple(w.shape) for name, w in weights.items()}
        if expected != given:
            name = sorted(set(expected.items()) ^ set(given.items()))[0][0]  # the first that differs
            raise ModelError(
                f"the weights do not fit this adapter (rank {self.shape.rank}): {name} has shape "
                f"{given.get(name, 'none')}, expected {expected.get(name, 'none')}"
            )
        with torch.no_grad():
            for name, p in self.parameters.items():
                p.copy_(weights[name])


class BaseModel:
    """A base causal language model with its tokenizer, shared by all adapters on it.

    It must not be used by several threads at once; the client gives each base model one worker.

    Attributes:
        name: "mint-tiny", the full path of a directory, or a hub name.
        source: What the model was loaded from.
        tokenizer: Its transformers tokenizer.
        device: The device it runs on.
        config: The configuration of its text model.
        vocab_size: Number of rows of its embedding, which may exceed the tokenizer's vocabulary.
        context: Longest sequence in tokens.
        end_tokens: The tokens that end a sample: the tokenizer's end of text, and those of the generation
            configuration, where chat models name the mark that ends a turn.
        notes: What a person who trains it should know, in plain words.
        hidden_size: Size of a hidden state.
        window: The smallest sliding window of its layers in tokens; None if there is none.
        weights: The base model's own parameters by name, without those of adapters.
        fingerprint: A hash of name, configuration and weights; None until it is computed.
        continues: Whether it continues from a key-value cache as from its tokens; None until sampling has tried it.
        shares_prompts: Whether samples of one prompt can share its key-value cache; None until sampling has tried it.
        threads: The largest number of CPU threads that it uses.
        cost: Memory that a training pass takes.
        packs: Whether it computes packed sequences exactly; if not, each sequence gets a separate padded row.

    Raises:
        ModelError: If the model is not causal, or cannot run.
    """

    def __init__(self, name: str, source: str, model: Any, tokenizer: Any, device: torch.device) -> None:
        self.name = name
        self.source = source
        self.tokenizer = tokenizer
        self.device = device
        self.config = model.config.get_text_config()
        self.vocab_size = int(model.get_input_embeddings().weight.shape[0])
        self.notes: list[str] = []
        self.context = context_of(self.config)
        if self.context < int(getattr(self.config, "max_position_embeddings", None) or 0):
            self.notes.append(
                f"sequences have at most {self.context} tokens: the model is a LongRoPE model, in which a longer one "
                "changes all others of its batch"
            )
        self.end_tokens = end_tokens_of(getattr(model, "generation_config", None), tokenizer)
        self.hidden_size = int(self.config.hidden_size)
        self.window = _smallest_window(self.config)
        self._packed_windows: set[int | None] = set()  # windows that layers have passed to packed attention
        self.weights: dict[str, torch.Tensor] = dict(model.named_parameters())
        self.fingerprint: str | None = None
        self.continues: bool | None = None
        self.shares_prompts: bool | None = None
        self._model = model
        self._cache_argument = cache_argument(model)
        fuse(model)  # now, not with the first adapter: the base model's outputs must not change by a bit later
        self._linear = linear_layers(model)
        self._experts = stacked_experts(model)
        self._checkpointable = checkpointable_layers(model)
        self._peft: Any = None
        self._names = itertools.count()
        self._active: str | None = None  # the adapter that PEFT has active
        self._in_use: str | None = None  # the adapter of the innermost `using`
        self._retired: list[str] = []  # adapters whose owners were garbage collected
        # Waiting for a second thread costs a very small model more than it saves (see tests/benchmarks/LOG.md).
        small = device.type == "cpu" and self.hidden_size <= SINGLE_THREAD_HIDDEN_SIZE
        self.threads = 1 if small else torch.get_num_threads()
        self.cost = self._memory_cost()
        self.packs = self._run_probes()

    @property
    def supports_gradient_checkpointing(self) -> bool:
        """Whether the model family supports gradient checkpointing."""
        return bool(self._checkpointable)

    def layout(self, sequences: Sequence[list[int]]) -> Layout:
        """Lay out ``sequences`` for this model's backbone: packed if it computes them exactly, otherwise padded."""
        return pack(sequences) if self._can_pack(sequences) else pad(sequences)

    def computed_tokens(self, sequences: Sequence[list[int]]) -> int:
        """Return the tokens that the backbone computes for a :meth:`layout`: shared prefixes once, padding included."""
        return stored_tokens(sequences) if self._can_pack(sequences) else len(sequences) * max(map(len, sequences))

    @property
    def packs_up_to(self) -> int | None:
        """The longest sequence that is packed, in tokens; None for no limit.

        The limit is the sliding window, in a family whose layers do not pass it to the attention function. Packed
        attention then sees no window, which is right only for sequences that do not exceed it.
        """
        return None if self.window in self._packed_windows else self.window

    def _can_pack(self, sequences: Sequence[list[int]]) -> bool:
        limit = self.packs_up_to
        return self.packs and (limit is None or max(map(len, sequences)) <= limit)

    def backbone(self, layout: Layout, *, gradient_checkpointing: bool = False) -> torch.Tensor:
        """Compute the hidden states before the LM head, with a graph if gradients are enabled.

        Args:
            layout: A batch.
            gradient_checkpointing: Whether the graph keeps only the input of each layer, so that the backward pass
                recomputes the rest.

        Returns:
            ``(*layout.tokens.shape, hidden)``.
        """
        body = getattr(self._model, self._model.base_model_prefix)
        inputs: dict[str, Any] = {
            "input_ids": layout.tokens.to(self.device),
            "position_ids": layout.positions.to(self.device),
            "use_cache": False,
        }
        plan = None
        attention: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext
        if layout.padded:  # the family builds its own causal mask
            inputs["attention_mask"] = layout.attention_mask.to(self.device)
        else:
            plan = plan_attention(layout, self._attention_features, self.device)
            attention = functools.partial(use_packed_attention, self.config, plan)
        checkpointing = (
            checkpoint_layers(self._checkpointable, attention) if gradient_checkpointing else contextlib.nullcontext()
        )
        with checkpointing, attention():
            hidden = body(**inputs).last_hidden_state
        if plan is not None:
            self._packed_windows |= plan.windows
        return hidden

    def head(self) -> Head:
        """Return the LM head with the adapter that is active now."""
        return head_of(self._model, self.config)

    def __call__(self, *, cache: Any = None, **inputs: Any) -> Any:
        """Call the whole transformers model.

        Args:
            cache: Keys and values of the tokens before; those of the given tokens are appended. None for no cache.
            inputs: Arguments of the model's forward method.
        """
        cached = {} if cache is None else {self._cache_argument: cache, "use_cache": True}
        return self._model(**cached, **inputs)

    def merged(self, max_bytes: int) -> contextlib.AbstractContextManager[None]:
        """Return a context with the active adapter merged into copies of the weights, if ``max_bytes`` allow it."""
        return contextlib.nullcontext() if self._peft is None else merged(self._peft, max_bytes)

    def attach(self, shape: LoraShape, seed: int | None) -> Adapter:
        """Attach a new adapter, and activate it.

        Args:
            shape: The adapter's shape.
            seed: Seed of the initial A; None for a random one. B starts at 0, so that with any seed the model first
                computes what the base model does.

        Raises:
            ModelError: If the model has no layer of a requested kind, or peft does not support its family.
        """
        import peft

        config = peft.LoraConfig(
            r=shape.rank,
            lora_alpha=LORA_ALPHA,
            target_modules=target_modules(self._linear, shape),
            target_parameters=target_parameters(self._experts, shape) or None,
            task_type="CAUSAL_LM",
            base_model_name_or_path=self.source,
        )
        name = f"adapter{next(self._names)}"
        # PEFT draws from torch's global generator, which the workers of other base models use too.
        with _seeding, torch.random.fork_rng(devices=[]):
            torch.manual_seed(secrets.randbits(63) if seed is None else seed)
            with suppress_peft_warnings():
                try:
                    if self._peft is None:
                        self._peft = peft.get_peft_model(self._model, config, adapter_name=name)
                    else:
                        self._peft.add_adapter(name, config)
                except (ValueError, NotImplementedError) as error:
                    raise ModelError(
                        f"peft cannot put LoRA on base model {self.name!r}: {str(error).splitlines()[0]}"
                    ) from error
            fuse(self._peft)
        self._peft.set_adapter(name)
        self._active = name
        self._delete_retired()
        adapter = Adapter(self, name, shape, self._parameters(name))
        # The garbage collector may run on any thread, even while the model runs, so only the name is noted here.
        weakref.finalize(adapter, self._retired.append, name)
        return adapter

    def without_lora(self, adapter: Adapter) -> list[str]:
        """Return which layers of the kinds that the adapter is for got no LoRA; ``*`` is the number of a layer."""
        return without_lora(self._linear, self._experts, adapter.shape, adapter.parameters)

    def peft_config(self, adapter: Adapter) -> Any:
        """Return the adapter's ``peft.LoraConfig``."""
        return self._peft.peft_config[adapter.name]

    @contextlib.contextmanager
    def using(self, adapter: Adapter | None, weights: Weights | None = None) -> Generator[None]:
        """Within this context, the model runs with an adapter, on no more than ``threads`` CPU threads.

        It may be nested: a custom loss, called during a pass, may request log-probabilities of the same model.

        Args:
            adapter: The adapter; None for the base model alone.
            weights: Values that replace the adapter's; None for its own.
        """
        threads = torch.get_num_threads()
        torch.set_num_threads(min(threads, self.threads))
        try:
            with self._with_adapter(adapter, weights):
                yield
        finally:
            torch.set_num_threads(threads)

    @contextlib.contextmanager
    def _with_adapter(self, adapter: Adapter | None, weights: Weights | None) -> Generator[None]:
        if adapter is None:
            with self._peft.disable_adapter() if self._peft is not None else contextlib.nullcontext():
                yield
            return
        outer, self._in_use = self._in_use, adapter.name
        original = {name: p.data for name, p in adapter.parameters.items()}
        try:
            self._activate(adapter.name)
            for name, weight in (weights or {}).items():
                adapter.parameters[name].data = weight
            yield
        finally:
            for name, p in adapter.parameters.items():
                p.data = original[name]
            self._in_use = outer
            if outer is not None:
                self._activate(outer)

    def _activate(self, name: str) -> None:
        if self._active != name:
            self._peft.set_adapter(name)
            self._active = name

    def _parameters(self, name: str) -> dict[str, nn.Parameter]:
        """Return an adapter's parameters, made trainable and float32, by their names in PEFT's files."""
        infix = f".{name}."  # part of the names in memory, and not of those in files
        parameters = {n.replace(infix, "."): p for n, p in self._peft.named_parameters() if infix in n}
        for p in parameters.values():
            p.data = p.data.float()
            p.requires_grad_(True)
        return parameters

    def _run_probes(self) -> bool:
        """Return whether sequences may be packed.

        Raises:
            ModelError: If the model is not causal, has another head than the engine's, or does not run.
        """
        body = getattr(self._model, self._model.base_model_prefix)
        tolerance = 2e-2 if self._model.dtype == torch.bfloat16 else 1e-4

        def hidden_alone(sequence: list[int]) -> torch.Tensor:
            return body(input_ids=torch.tensor([sequence], device=self.device), use_cache=False).last_hidden_state[0]

        def logits_alone(sequence: list[int]) -> torch.Tensor:
            return self._model(input_ids=torch.tensor([sequence], device=self.device), use_cache=False).logits[0]

        try:
            with torch.no_grad():
                check_causal(hidden_alone, self.vocab_size, tolerance)
                check_head(hidden_alone, logits_alone, self.head().logits, self.vocab_size, tolerance)
                return packs_exactly(hidden_alone, self.backbone, self.vocab_size, tolerance)
        except (RuntimeError, ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
            raise ModelError(f"cannot use base model {self.source!r}: {error}") from error

    @property
    def _attention_features(self) -> int:
        """Size of all query heads together."""
        return max(heads * dim for heads, dim in map(query_heads, layer_configs(self.config)))

    def _memory_cost(self) -> MemoryCost:
        """Estimate the memory that a token takes in a training pass, as described in :mod:`mint_lab.engine.memory`."""
        itemsize = self._model.dtype.itemsize
        modules = dict(self._model.named_modules())
        # The sum of in + out over all linear layers but the head.
        features = sum(sum(modules[path].weight.shape) for path, kind in self._linear.items() if kind != "unembed")
        layers = int(getattr(self.config, "num_hidden_layers", None) or 1)
        one_layer = 2 * itemsize * features // layers
        # With gradient checkpointing: one layer at a time, and the input of every layer, counted twice as above.
        layer_inputs = 2 * itemsize * self.hidden_size * layers
        return MemoryCost(
            backbone=one_layer * layers,
            backbone_checkpointed=one_layer + layer_inputs,
            head=8 * self.vocab_size,
            chunk=chunk_positions(self.vocab_size),
        )

    def _delete_retired(self) -> None:
        """Delete the adapters whose owners are gone; the active adapter must not be among them."""
        while self._retired:
            self._peft.delete_adapter(self._retired.pop())


_loaded: weakref.WeakValueDictionary[tuple[str, str, torch.dtype], BaseModel] = weakref.WeakValueDictionary()
_loading = threading.Lock()
_seeding = threading.Lock()


def load_base(
    name: str, device: str | None = None, dtype: str | None = None, *, trust_remote_code: bool = False
) -> BaseModel:
    """Load a base model, or return the one in memory: equal arguments share one object while it is in use.

    Args:
        name: The bundled ``mint-tiny``, a local directory, or a hub name.
        device: "cuda", "mps" or "cpu"; None for the best device available.
        dtype: Type of the frozen weights, "float32" or "bfloat16"; None for bfloat16 on a CUDA device that supports
            it, otherwise float32. LoRA weights, log-probabilities and losses are always float32.
        trust_remote_code: Whether to run Python code that comes with the model, if it needs any.

    Raises:
        ModelError: If the model cannot be found or loaded.
        ConfigError: If torch has no such device, or ``dtype`` is another type.
    """
    torch_device = pick_device(device)
    torch_dtype = pick_dtype(torch_device, dtype)
    source = resolve_source(name)
    with _loading:
        base = _loaded.get((source, str(torch_device), torch_dtype))
        if base is None:
            tokenizer, model = load_pretrained(source, torch_device, torch_dtype, trust_remote_code=trust_remote_code)
            base = BaseModel(canonical_name(source), source, model, tokenizer, torch_device)
            _loaded[(source, str(torch_device), torch_dtype)] = base
        return base


def pick_dtype(device: torch.device, name: str | None = None) -> torch.dtype:
    """Return the requested type, or by default bfloat16 on a CUDA device that supports it and float32 elsewhere.

    Some CPUs multiply bfloat16 faster too. Float32 is their default nevertheless, for equal numbers on all of them.

    Raises:
        ConfigError: If ``name`` is neither "float32" nor "bfloat16".
    """
    if name is not None:
        dtypes = {"float32": torch.float32, "bfloat16": torch.bfloat16}
        if name not in dtypes:
            raise ConfigError(f"dtype is {name!r}, expected 'float32' or 'bfloat16'")
        return dtypes[name]
    return torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported() else torch.float32


def pick_device(name: str | None = None) -> torch.device:
    """Return the requested device, or by default the first available of CUDA, MPS and CPU.

    Raises:
        ConfigError: If torch has no such device.
    """
    if name is not None:
        try:
            return torch.device(name)
        except (RuntimeError, TypeError):
            raise ConfigError(f"device is {name!r}, expected 'cuda', 'mps' or 'cpu'") from None
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def _smallest_window(config: Any) -> int | None:
    """Return the smallest attention window in a configuration, under any family's name for it, or None."""
    sizes = (getattr(config, name, None) for name in ("sliding_window", "window_size", "attention_chunk_size"))
    return min((size for size in sizes if isinstance(size, int) and size > 0), default=None)
