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
import weakref
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import ModelError
from ..lora_options import LoraOptions
from ..threads import process_lock
from ..usercode.out_of_memory import is_out_of_memory
from .attention import plan_attention, use_packed_attention
from .device import dtype_note, pick_device, pick_dtype, to_device
from .family_probes import check_causal, check_head, in_float32, packs_exactly
from .fused_layers import fuse, merged
from .gradient_checkpointing import checkpoint_layers, checkpointable_layers
from .head import Head, head_of
from .kv_cache import cache_argument, layer_configs, query_heads
from .logprobs import LOGIT_BYTES, chunk_positions
from .lora import (
    LoraLayers,
    check_rank,
    layers_below_rank,
    linear_layers,
    lora_layers,
    stacked_experts,
    suppress_peft_warnings,
    without_lora,
)
from .lora_dropout import LoraDropout
from .memory import MemoryCost
from .packing import Layout, pack, pad, stored_tokens
from .pretrained import canonical_name, load_pretrained, resolve_source
from .text_model import context_of, end_tokens_of

__all__ = ["Adapter", "BaseModel", "Weights", "load_base"]

# Largest hidden size with which one CPU thread is faster than two.
SINGLE_THREAD_HIDDEN_SIZE = 256

PROBE_TOLERANCE = 1e-4  # of the largest value, in float32

Weights = dict[str, torch.Tensor]


class Adapter:
    """One LoRA adapter on a base model.

    Args:
        base: The base model.
        name: PEFT's name of the adapter on that model.
        lora: Its options.
        parameters: Its parameters by the names in PEFT's files, float32, in a fixed order.
        layers: PEFT's modules of the layers that carry it.
        dropout_seed: Seed of its dropout, from 0 up.

    Attributes:
        gradients: The accumulated gradient of each parameter, in the order of ``parameters``; None if there is none.
        start: The weights of the reference, at which training starts; None for the base model alone, which is also what
            a new adapter computes.
        dropout_passes: Number of training passes with dropout so far.
    """

    def __init__(
        self,
        base: BaseModel,
        name: str,
        lora: LoraOptions,
        parameters: dict[str, nn.Parameter],
        *,
        layers: Sequence[Any],
        dropout_seed: int,
    ) -> None:
        self.base = base
        self.name = name
        self.lora = lora
        self.parameters = parameters
        self.gradients: list[torch.Tensor] | None = None
        self.start: Weights | None = None
        self.dropout_seed = dropout_seed
        self.dropout_passes = 0
        self._layers = layers

    def start_here(self) -> None:
        """Make the current weights those at which training starts."""
        self.refer_to_current()
        self.dropout_passes = 0

    def refer_to_current(self) -> None:
        """Make the current weights the reference."""
        is_new = not any(bool(p.any()) for name, p in self.parameters.items() if ".lora_B." in name)  # the update is 0
        self.start = None if is_new else self.copy()

    def dropout(self, micro_batch: int) -> LoraDropout | None:
        """Return the dropout of a micro-batch in the next training pass; None if the adapter has none."""
        if not self.lora.dropout:
            return None
        return LoraDropout(self._layers, self.lora.dropout, (self.dropout_seed, self.dropout_passes, micro_batch))

    def add_gradients(self, gradients: list[torch.Tensor]) -> None:
        """Add ``gradients``, in the order of ``parameters``, to the accumulated ones."""
        if self.gradients is None:
            self.gradients = gradients
        else:
            self.gradients = [a + b for a, b in zip(self.gradients, gradients, strict=True)]

    def copy(self) -> Weights:
        """Return a copy of the current weights by PEFT's names."""
        return {name: p.detach().clone() for name, p in self.parameters.items()}

    def check(self, weights: Weights) -> None:
        """Check that weights fit.

        Raises:
            ModelError: If names or shapes differ.
        """
        expected = {name: tuple(p.shape) for name, p in self.parameters.items()}
        given = {name: tuple(w.shape) for name, w in weights.items()}
        if expected != given:
            name = sorted(set(expected.items()) ^ set(given.items()))[0][0]  # the first that differs
            raise ModelError(
                f"the weights do not fit this adapter (rank {self.lora.rank}): {name} has shape "
                f"{given.get(name, 'none')}, expected {expected.get(name, 'none')}"
            )

    def load(self, weights: Weights) -> None:
        """Overwrite the weights.

        Raises:
            ModelError: If names or shapes differ. Nothing is changed then.
        """
        self.check(weights)
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
        self._own = dict(model.named_parameters(remove_duplicate=False))  # a tied head is there by its own name too
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
        if not self.packs:
            self.notes.append(
                "its attention cannot compute packed rows, so each sequence takes a padded row of its own: batches of "
                "sequences of unequal length take longer"
            )
        self.notes += [note] if (note := dtype_note(device, model.dtype)) else []

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

    def backbone(
        self, layout: Layout, *, gradient_checkpointing: bool = False, dropout: LoraDropout | None = None
    ) -> torch.Tensor:
        """Compute the hidden states before the LM head, with a graph if gradients are enabled.

        Args:
            layout: A batch.
            gradient_checkpointing: Whether the graph keeps only the input of each layer, so that the backward pass
                recomputes the rest.
            dropout: The dropout of the active adapter; None for no dropout.

        Returns:
            ``(*layout.tokens.shape, hidden)``.
        """
        body = getattr(self._model, self._model.base_model_prefix)
        inputs: dict[str, Any] = {
            "input_ids": to_device(layout.tokens, self.device),
            "position_ids": to_device(layout.positions, self.device),
            "use_cache": False,
        }
        plan = None
        contexts: list[Callable[[], contextlib.AbstractContextManager[None]]] = []
        if layout.padded:  # the family builds its own causal mask
            inputs["attention_mask"] = to_device(layout.attention_mask, self.device)
        else:
            plan = plan_attention(layout, self._attention_features, self.device)
            contexts.append(functools.partial(use_packed_attention, self.config, plan))
        if dropout is not None:
            contexts.append(dropout.applied)
        context = functools.partial(_entered, contexts)
        checkpointing = (
            checkpoint_layers(self._checkpointable, context) if gradient_checkpointing else contextlib.nullcontext()
        )
        with checkpointing, context():
            hidden = body(**inputs).last_hidden_state
        if plan is not None:
            self._packed_windows |= plan.windows
        return hidden

    def head(self) -> Head:
        """Return the LM head with the adapter that is active now."""
        return head_of(self._model, self.config)

    @contextlib.contextmanager
    def in_float32(self) -> Generator[None]:
        """Within this context, the model runs without adapters and in float32: for probes of its family."""
        with self._with_adapter(None, None), in_float32(self._model):
            yield

    def head_dropout(self, dropout: LoraDropout | None, hidden: torch.Tensor) -> torch.Tensor | None:
        """Return the dropout mask of the input of the head's LoRA, ``(tokens, hidden)``; None for no dropout."""
        return None if dropout is None else dropout.mask_of(self._model.get_output_embeddings(), hidden)

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

    def lora_layers(self, options: LoraOptions) -> LoraLayers:
        """Return the layers of this model that carry LoRA.

        Raises:
            ModelError: If there is none, or experts of a mixture would need dropout, which peft has for layers only.
        """
        layers = lora_layers(self._linear, self._experts, options)
        if layers.experts and options.dropout:
            raise ModelError(
                f"dropout is {options.dropout:g}, but the experts of {self.name!r} are parameters "
                f"({', '.join(layers.target_parameters)}), on which peft has no dropout: use dropout=0, or leave the "
                "experts out with mlp=False or target_modules"
            )
        return layers

    def kinds(self, layers: LoraLayers) -> set[str]:
        """Return the kinds of layers, "attn", "mlp" and "unembed", that are among ``layers``; experts are MLPs."""
        return {self._linear[path] for path in layers.linear} | ({"mlp"} if layers.experts else set())

    def check_new(self, options: LoraOptions) -> None:
        """Check that a new adapter of these options makes sense on this model.

        Raises:
            ModelError: If there is no such layer, its experts exclude dropout, or the rank is above the smaller
                dimension of every layer.
        """
        check_rank(self._smaller_dimensions(self.lora_layers(options)), options)

    def attach(self, options: LoraOptions, seed: int | None) -> Adapter:
        """Attach a new adapter, and activate it.

        Args:
            options: The adapter's options.
            seed: Seed of the initial A and of dropout; None for a random one. B starts at 0, so that with any seed the
                model first computes what the base model does.

        Raises:
            ModelError: If the model has no such layer, its experts exclude dropout, peft does not support its family,
                or memory runs out.
        """
        import peft

        layers = self.lora_layers(options)
        config = peft.LoraConfig(
            r=options.rank,
            lora_alpha=options.alpha,  # pyright: ignore[reportArgumentType]  # peft computes with any number
            lora_dropout=options.dropout,
            use_rslora=options.rslora,
            target_modules=layers.target_modules or None,
            target_parameters=layers.target_parameters or None,
            task_type="CAUSAL_LM",
            base_model_name_or_path=self.source,
        )
        name = f"adapter{next(self._names)}"
        seed = secrets.randbits(63) if seed is None else int(seed)
        # PEFT draws from torch's global generator, which the workers of other base models use too.
        with _seeding, torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            with suppress_peft_warnings():
                try:
                    if self._peft is None:
                        self._peft = peft.get_peft_model(self._model, config, adapter_name=name)
                    else:
                        self._peft.add_adapter(name, config)
                except (ValueError, RuntimeError, MemoryError) as error:
                    if not isinstance(error, (ValueError, NotImplementedError)) and not is_out_of_memory(error):
                        raise
                    reason = next(iter(str(error).splitlines()), type(error).__name__)
                    raise ModelError(f"peft cannot put LoRA on base model {self.name!r}: {reason}") from error
            fuse(self._peft)
        self._peft.eval()  # peft creates its dropout modules in training mode
        self._peft.set_adapter(name)
        self._active = name
        self._delete_retired()
        modules = [module for module in self._peft.modules() if name in getattr(module, "lora_A", ())]
        parameters = self._parameters(name)
        adapter = Adapter(self, name, options, parameters, layers=modules, dropout_seed=seed % 2**64)
        # The garbage collector may run on any thread, even while the model runs, so only the name is noted here.
        weakref.finalize(adapter, self._retired.append, name)
        return adapter

    def lora_notes(self, adapter: Adapter) -> list[str]:
        """Return what a person who trains the adapter should know about its layers, in plain words."""
        layers = self.lora_layers(adapter.lora)
        notes: list[str] = []
        if missing := without_lora(layers, adapter.parameters):
            notes.append(f"these layers have no LoRA, because peft has none for them: {', '.join(missing)}")
        if small := layers_below_rank(self._smaller_dimensions(layers), adapter.lora):
            notes.append(
                f"rank {adapter.lora.rank} is above the smaller dimension of these layers, so a lower rank would give "
                f"them the same updates: {', '.join(small)}"
            )
        if adapter.lora.dropout:
            notes.append(
                f"dropout {adapter.lora.dropout:g} acts in training passes only: log-probabilities of a sampler or a "
                "reference have none, so that ratios do not start at 1, and margins not at 0"
            )
        return notes

    def is_copy(self, name: str, tensor: torch.Tensor) -> bool:
        """Return whether a tensor of PEFT's file is a copy of the base model's own.

        PEFT saves the embedding and the head in addition if the head carries LoRA.
        """
        own = self._own.get(name.removeprefix("base_model.model.").replace(".base_layer.", "."))
        return own is not None and own.shape == tensor.shape and torch.equal(own, tensor.to(own))

    def save_tokenizer(self, folder: Path) -> None:
        """Write the tokenizer with its chat template, and the generation configuration, to ``folder``."""
        self.tokenizer.save_pretrained(str(folder))
        generation = getattr(self._model, "generation_config", None)
        if generation is not None:  # not by save_pretrained, which refuses values that some models on the hub have
            generation.to_json_file(folder / "generation_config.json")

    def _smaller_dimensions(self, layers: LoraLayers) -> dict[str, int]:
        """Return the smaller dimension of each layer, by path; experts are ``(experts, in, out)``."""
        names = {**{path: f"{path}.weight" for path in layers.linear}, **{name: name for name in layers.experts}}
        return {path: min(self._own[name].shape[-2:]) for path, name in names.items()}

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

        def hidden_alone(sequence: list[int]) -> torch.Tensor:
            return body(input_ids=torch.tensor([sequence], device=self.device), use_cache=False).last_hidden_state[0]

        def logits_alone(sequence: list[int]) -> torch.Tensor:
            return self._model(input_ids=torch.tensor([sequence], device=self.device), use_cache=False).logits[0]

        try:
            with torch.no_grad(), in_float32(self._model):
                vocab, head = self.vocab_size, self.head().in_float32()
                check_causal(hidden_alone, vocab, PROBE_TOLERANCE)
                check_head(hidden_alone, logits_alone, head.logits, vocab, PROBE_TOLERANCE)
                return packs_exactly(hidden_alone, self.backbone, vocab, PROBE_TOLERANCE)
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
            head=LOGIT_BYTES * self.vocab_size,
            chunk=chunk_positions(self.vocab_size, self.device),
        )

    def _delete_retired(self) -> None:
        """Delete the adapters whose owners are gone; the active adapter must not be among them."""
        while self._retired:
            self._peft.delete_adapter(self._retired.pop())


@contextlib.contextmanager
def _entered(contexts: Sequence[Callable[[], contextlib.AbstractContextManager[None]]]) -> Generator[None]:
    """Enter all contexts."""
    with contextlib.ExitStack() as stack:
        for context in contexts:
            stack.enter_context(context())
        yield


_loaded: weakref.WeakValueDictionary[tuple[str, str, torch.dtype], BaseModel] = weakref.WeakValueDictionary()
_loading = process_lock()
_seeding = process_lock()


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


def _smallest_window(config: Any) -> int | None:
    """Return the smallest attention window in a configuration, under any family's name for it, or None."""
    sizes = (getattr(config, name, None) for name in ("sliding_window", "window_size", "attention_chunk_size"))
    return min((size for size in sizes if isinstance(size, int) and size > 0), default=None)
