"""Loading a base model and attaching LoRA adapters to it.

Several training clients share one copy of a base model: each owns one adapter (``peft``), and exactly one adapter, or
none, is active at a time. Snapshots for sampling are copies of an adapter's tensors, swapped in for a call.
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
from . import gradient_checkpointing
from .attention import attending, plan
from .family_probes import check_causal, check_head, packs_exactly
from .fused_layers import fuse, merged
from .head import Head, head_of
from .kv_cache import cache_argument
from .logprobs import chunk_positions
from .lora import LORA_ALPHA, LoraShape, linear_layers, peft_quiet, targets
from .memory import MemoryCost
from .packing import Layout, pack, pad, stored_tokens
from .pretrained import find, name_of, read

__all__ = ["Adapter", "BaseModel", "LoraShape", "Weights", "load_base", "pick_device", "pick_dtype"]

# Hidden size up to which one CPU thread is faster than two.
SMALL = 256

Weights = dict[str, torch.Tensor]


class Adapter:
    """One LoRA adapter on a base model: its parameters, the gradient accumulated so far, and a copy on demand."""

    def __init__(self, base: BaseModel, name: str, shape: LoraShape, parameters: dict[str, nn.Parameter]) -> None:
        self.base = base
        self.name = name
        self.shape = shape
        self.parameters = parameters
        self.gradients: list[torch.Tensor] | None = None

    def add_gradients(self, gradients: list[torch.Tensor]) -> None:
        """Accumulate; ``gradients`` in the order of ``parameters``."""
        if self.gradients is None:
            self.gradients = gradients
        else:
            self.gradients = [a + b for a, b in zip(self.gradients, gradients, strict=True)]

    def copy(self) -> Weights:
        """A copy of the present weights, by PEFT's names."""
        return {name: p.detach().clone() for name, p in self.parameters.items()}

    def load(self, weights: Weights) -> None:
        """Overwrite the weights.

        Raises:
            ModelError: names or shapes differ; nothing has been changed then.
        """
        here = {name: tuple(p.shape) for name, p in self.parameters.items()}
        there = {name: tuple(w.shape) for name, w in weights.items()}
        if here != there:
            odd = sorted(set(here.items()) ^ set(there.items()))[0]
            raise ModelError(
                f"the weights do not fit this adapter (rank {self.shape.rank}): {odd[0]} has shape "
                f"{there.get(odd[0], 'none')}, expected {here.get(odd[0], 'none')}"
            )
        with torch.no_grad():
            for name, p in self.parameters.items():
                p.copy_(weights[name])


class BaseModel:
    """A base causal language model with its tokenizer, shared by every adapter on it.

    Not safe for several threads at once: the client gives each base model one worker.

    Attributes:
        name: "mint-tiny", a directory's full path, or a hub name; ``source``: where it was loaded from.
        context: longest sequence, tokens.
        threads: CPU threads its passes take at most.
        packs: whether its attention runs over packed sequences exactly; otherwise each has a row of its own.
        window: tokens that some layer looks back at most; None: there is no limit. Where the family does not tell
            its attention function so, longer sequences have rows of their own too.
        weights: the base model's own parameters by name, without any adapter's.
        fingerprint: a hash of name and weights, once somebody has asked for it.
        shares_prompts: whether samples of a prompt can share its cache, once somebody has sampled.

    Raises:
        ModelError: the model is not causal, or cannot run at all.
    """

    def __init__(self, name: str, source: str, model: Any, tokenizer: Any, device: torch.device) -> None:
        self.name = name
        self.source = source
        self.tokenizer = tokenizer
        self.device = device
        self.config = model.config.get_text_config()
        self.vocab_size = int(model.get_input_embeddings().weight.shape[0])
        self.context = int(getattr(self.config, "max_position_embeddings", None) or 1_000_000)
        self.hidden_size = int(self.config.hidden_size)
        self.window = _window(self.config)
        self._windows: set[int | None] = set()
        self.weights: dict[str, torch.Tensor] = dict(model.named_parameters())
        self.fingerprint: str | None = None
        self.shares_prompts: bool | None = None
        self._model = model
        self._cache_argument = cache_argument(model)
        fuse(model)  # now, and not with the first adapter: the base model's numbers stay the same to the last bit
        self._linear = linear_layers(model)
        self._layers = gradient_checkpointing.layers_of(model)
        self._peft: Any = None
        self._names = itertools.count()
        self._active: str | None = None
        self._in_use: str | None = None
        self._retired: list[str] = []
        # A second thread costs a very small model more in waiting than it saves in work (see tests/benchmarks/LOG.md).
        self.threads = 1 if device.type == "cpu" and self.hidden_size <= SMALL else torch.get_num_threads()
        self.cost = self._cost()
        self.packs = self._probe()

    @property
    def can_recompute(self) -> bool:
        """Whether gradient checkpointing is to be had with this family."""
        return bool(self._layers)

    def layout(self, sequences: Sequence[list[int]]) -> Layout:
        """``sequences`` laid out for this model's trunk."""
        return pack(sequences) if self._shares(sequences) else pad(sequences)

    def size(self, sequences: Sequence[list[int]]) -> int:
        """Tokens that :meth:`layout` makes the trunk compute: shared prefixes once, padding counted."""
        return stored_tokens(sequences) if self._shares(sequences) else len(sequences) * max(map(len, sequences))

    @property
    def packs_up_to(self) -> int | None:
        """Longest sequence that is packed: the window, if layers do not tell attention of it; None: there is none."""
        return None if self.window in self._windows else self.window

    def _shares(self, sequences: Sequence[list[int]]) -> bool:
        limit = self.packs_up_to
        return self.packs and (limit is None or max(map(len, sequences)) <= limit)

    def trunk(self, layout: Layout, *, checkpointing: bool = False) -> torch.Tensor:
        """Hidden states before the output layer, shaped as ``layout.tokens``, with a graph where gradients are on.

        With ``checkpointing`` the graph keeps each layer's input only, and the backward pass computes the rest again.
        """
        body = getattr(self._model, self._model.base_model_prefix)
        inputs: dict[str, Any] = {
            "input_ids": layout.tokens.to(self.device),
            "position_ids": layout.positions.to(self.device),
            "use_cache": False,
        }
        blocks = None
        around: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext
        if layout.padded:  # the family makes its own mask
            inputs["attention_mask"] = layout.present.to(self.device)
        else:
            blocks = plan(layout, self._attention_features, self.device)
            around = functools.partial(attending, self.config, blocks)
        with (
            gradient_checkpointing.recomputed(self._layers, around) if checkpointing else contextlib.nullcontext(),
            around(),
        ):
            hidden = body(**inputs).last_hidden_state
        if blocks is not None:
            self._windows |= blocks.windows
        return hidden

    def head(self) -> Head:
        """The output layer, with the adapter that is active now."""
        return head_of(self._model, self.config)

    def __call__(self, *, cache: Any = None, **inputs: Any) -> Any:
        """The whole model as transformers calls it; ``cache`` holds what came before, and grows by the tokens given."""
        held = {} if cache is None else {self._cache_argument: cache, "use_cache": True}
        return self._model(**held, **inputs)

    def merged(self, limit: int) -> contextlib.AbstractContextManager[None]:
        """In here the active adapter is part of copies of the weights, if they take ``limit`` bytes at most."""
        return contextlib.nullcontext() if self._peft is None else merged(self._peft, limit)

    def attach(self, shape: LoraShape, seed: int | None) -> Adapter:
        """A new adapter. LoRA starts at B = 0, so the model starts as the base model, whatever the seed."""
        import peft

        config = peft.LoraConfig(
            r=shape.rank,
            lora_alpha=LORA_ALPHA,
            target_modules=targets(self._linear, shape),
            task_type="CAUSAL_LM",
            base_model_name_or_path=self.source,
        )
        name = f"adapter{next(self._names)}"
        # peft draws from torch's one generator, which other base models' workers use too.
        with _seeding, torch.random.fork_rng(devices=[]):
            torch.manual_seed(secrets.randbits(63) if seed is None else seed)
            with peft_quiet():
                if self._peft is None:
                    self._peft = peft.get_peft_model(self._model, config, adapter_name=name)
                else:
                    self._peft.add_adapter(name, config)
            fuse(self._peft)
        self._peft.set_adapter(name)
        self._active = name
        self._sweep()
        adapter = Adapter(self, name, shape, self._parameters(name))
        # The garbage collector may run on any thread, even while the model is at work: only note the name.
        weakref.finalize(adapter, self._retired.append, name)
        return adapter

    def peft_config(self, adapter: Adapter) -> Any:
        """The adapter's ``peft.LoraConfig``."""
        return self._peft.peft_config[adapter.name]

    @contextlib.contextmanager
    def using(self, adapter: Adapter | None, weights: Weights | None = None) -> Generator[None]:
        """Run the model with ``adapter`` (None: the base model alone), or with other ``weights`` in its place.

        May be nested: a custom loss, called in the middle of a pass, may ask the same model for a reference.
        """
        threads = torch.get_num_threads()
        torch.set_num_threads(min(threads, self.threads))
        try:
            with self._switched(adapter, weights):
                yield
        finally:
            torch.set_num_threads(threads)

    @contextlib.contextmanager
    def _switched(self, adapter: Adapter | None, weights: Weights | None) -> Generator[None]:
        if adapter is None:
            with self._peft.disable_adapter() if self._peft is not None else contextlib.nullcontext():
                yield
            return
        outer, self._in_use = self._in_use, adapter.name
        own = {name: p.data for name, p in adapter.parameters.items()}
        try:
            self._activate(adapter.name)
            for name, weight in (weights or {}).items():
                adapter.parameters[name].data = weight
            yield
        finally:
            for name, p in adapter.parameters.items():
                p.data = own[name]
            self._in_use = outer
            if outer is not None:
                self._activate(outer)

    def _activate(self, name: str) -> None:
        if self._active != name:
            self._peft.set_adapter(name)
            self._active = name

    def _parameters(self, name: str) -> dict[str, nn.Parameter]:
        """PEFT's saved name -> parameter, in a fixed order."""
        part = f".{name}."
        found = {n.replace(part, "."): p for n, p in self._peft.named_parameters() if part in n}
        for p in found.values():
            p.data = p.data.float()
            p.requires_grad_(True)
        return found

    def _probe(self) -> bool:
        """Whether sequences may be packed; raises :class:`ModelError` where the model is not causal or does not run."""
        body = getattr(self._model, self._model.base_model_prefix)
        tolerance = 2e-2 if self._model.dtype == torch.bfloat16 else 1e-4

        def alone(sequence: list[int]) -> torch.Tensor:
            return body(input_ids=torch.tensor([sequence], device=self.device), use_cache=False).last_hidden_state[0]

        def logits(sequence: list[int]) -> torch.Tensor:
            return self._model(input_ids=torch.tensor([sequence], device=self.device), use_cache=False).logits[0]

        try:
            with torch.no_grad():
                check_causal(alone, self.vocab_size, tolerance)
                check_head(alone, logits, self.head().logits, self.vocab_size, tolerance)
                return packs_exactly(alone, self.trunk, self.vocab_size, tolerance)
        except (RuntimeError, ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
            raise ModelError(f"cannot use base model {self.source!r}: {error}") from error

    @property
    def _attention_features(self) -> int:
        heads = int(getattr(self.config, "num_attention_heads", None) or 1)
        return heads * int(getattr(self.config, "head_dim", None) or self.hidden_size // heads)

    def _cost(self) -> MemoryCost:
        """Memory that a token takes in a training pass; see :mod:`mint_lab.engine.memory`."""
        size = self._model.dtype.itemsize
        modules = dict(self._model.named_modules())
        features = sum(sum(modules[path].weight.shape) for path, kind in self._linear.items() if kind != "unembed")
        layers = int(getattr(self.config, "num_hidden_layers", None) or 1)
        layer = 2 * size * features // layers
        kept = 2 * size * self.hidden_size * layers
        chunk = chunk_positions(self.vocab_size)
        return MemoryCost(trunk=layer * layers, recomputed=layer + kept, head=8 * self.vocab_size, chunk=chunk)

    def _sweep(self) -> None:
        """Delete the adapters whose owners are gone; the active one must not be among them."""
        while self._retired:
            self._peft.delete_adapter(self._retired.pop())


_loaded: weakref.WeakValueDictionary[tuple[str, str, torch.dtype], BaseModel] = weakref.WeakValueDictionary()
_loading = threading.Lock()
_seeding = threading.Lock()


def load_base(name: str, device: str | None = None, dtype: str | None = None) -> BaseModel:
    """A base model by name: the bundled ``mint-tiny``, a local directory, or a hub name. Loaded once, then shared.

    Args:
        device: "cuda", "mps" or "cpu"; None picks the best one there is.
        dtype: of the frozen weights, "float32" or "bfloat16"; None picks bfloat16 on a GPU that multiplies it faster.
            LoRA weights, log-probabilities and losses are float32 whatever it is.

    Raises:
        ModelError: it cannot be found or loaded.
        ConfigError: torch knows no such device, or the type is another one.
    """
    where = pick_device(device)
    kind = pick_dtype(where, dtype)
    source = find(name)
    with _loading:
        base = _loaded.get((source, str(where), kind))
        if base is None:
            tokenizer, model = read(source, where, kind)
            base = BaseModel(name_of(source), source, model, tokenizer, where)
            _loaded[(source, str(where), kind)] = base
        return base


def pick_dtype(device: torch.device, name: str | None = None) -> torch.dtype:
    """The type asked for, or bfloat16 on CUDA where the hardware has it, or float32.

    Some CPUs multiply bfloat16 faster too; they keep float32 unless asked otherwise, for the same numbers everywhere.

    Raises:
        ConfigError: neither "float32" nor "bfloat16".
    """
    if name is not None:
        kinds = {"float32": torch.float32, "bfloat16": torch.bfloat16}
        if name not in kinds:
            raise ConfigError(f"dtype is {name!r}, expected 'float32' or 'bfloat16'")
        return kinds[name]
    return torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported() else torch.float32


def pick_device(name: str | None = None) -> torch.device:
    """The device asked for, or CUDA, then MPS, then CPU.

    Raises:
        ConfigError: torch knows no such device.
    """
    if name is not None:
        try:
            return torch.device(name)
        except (RuntimeError, TypeError):
            raise ConfigError(f"device is {name!r}, expected 'cuda', 'mps' or 'cpu'") from None
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def _window(config: Any) -> int | None:
    """Tokens that the attention of some layer looks back at most, under the names that families have for it."""
    found = (getattr(config, name, None) for name in ("sliding_window", "window_size", "attention_chunk_size"))
    return min((w for w in found if isinstance(w, int) and w > 0), default=None)
