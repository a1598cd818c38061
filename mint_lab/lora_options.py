"""What a LoRA adapter is: its rank, its scale, its dropout, and the layers that carry it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import KW_ONLY, asdict, dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from .errors import ConfigError

__all__ = ["ADAPTER_CONFIG", "DEFAULT_ALPHA", "LoraOptions", "adapter_folder", "merge_rank", "refuse_hosted"]

ADAPTER_CONFIG = "adapter_config.json"
"""PEFT's file in the folder of an adapter."""

DEFAULT_ALPHA = 32
"""The hosted service's alpha. The update is scaled by alpha / rank, so the learning rate need not follow the rank."""

_KINDS = ("attn", "mlp", "unembed")


@dataclass(frozen=True)
class LoraOptions:
    r"""The options of a LoRA adapter (Hu et al. 2021), which adds :math:`s B A` to the weight of a linear layer.

    A is ``(rank, in)`` and B is ``(out, rank)``. With dropout, training computes :math:`W x + s B A (m \odot x)`; the
    entries of the mask :math:`m` are 0 with probability ``dropout``, otherwise :math:`1 / (1 - \mathrm{dropout})`.

    >>> mint_lab.LoraOptions(rank=16, alpha=64, rslora=True, unembed=False)             # doctest: +SKIP
    >>> mint_lab.LoraOptions(target_modules=["q_proj", "v_proj"], dropout=0.05)         # doctest: +SKIP

    Attributes:
        rank: Rank of the update of each layer. A rank above the smaller dimension of a layer adds weights without
            adding updates that the layer could not have before; a note names such layers.
        alpha: Numerator of the scale :math:`s` = alpha / rank; above 0.
        dropout: Probability with which training passes drop an input of LoRA, in [0, 1). Sampling, evaluation and
            reference log-probabilities drop nothing.
        attn: Whether the attention's layers carry LoRA. None means True, unless ``target_modules`` is given.
        mlp: Whether the MLP's layers carry LoRA, which are all linear layers that are neither attention nor the head,
            and the experts of a mixture. None as above.
        unembed: Whether the LM head carries LoRA. None as above.
        target_modules: Instead of kinds: names of layers, as in PEFT. A layer is meant if its path is the name, or
            ends with a dot and the name.
        rslora: Whether :math:`s` is alpha / sqrt(rank) (Kalajdzievski 2023, arXiv:2312.03732), as PEFT's
            ``use_rslora``.

    Raises:
        ConfigError: If a value has the wrong type or is out of range, no kind of layer is left, or both kinds and
            ``target_modules`` are given.
    """

    rank: int = 16
    _: KW_ONLY
    alpha: float = DEFAULT_ALPHA
    dropout: float = 0.0
    attn: bool | None = None
    mlp: bool | None = None
    unembed: bool | None = None
    target_modules: Sequence[str] | None = None
    rslora: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.rank, bool) or not isinstance(self.rank, Integral) or self.rank < 1:
            raise ConfigError(f"rank is {self.rank!r}, expected a whole number from 1 up")
        self._set(rank=int(self.rank))
        if not _is_number(self.alpha) or not 0 < self.alpha < math.inf:
            raise ConfigError(f"alpha is {self.alpha!r}, expected a finite number above 0")
        alpha = float(self.alpha)
        self._set(alpha=int(alpha) if alpha.is_integer() else alpha)  # PEFT's files have whole numbers
        if not _is_number(self.dropout) or not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout is {self.dropout!r}, expected a number from 0 up and below 1")
        self._set(dropout=float(self.dropout))
        for name in (*_KINDS, "rslora"):
            value = getattr(self, name)
            if not isinstance(value, bool) and (value is not None or name == "rslora"):
                raise ConfigError(f"{name} is {value!r}, expected True or False")
        self._check_layers()

    def _check_layers(self) -> None:
        if self.target_modules is None:
            self._set(**{kind: getattr(self, kind) is not False for kind in _KINDS})
            if not (self.attn or self.mlp or self.unembed):
                raise ConfigError("nothing to train: attn, mlp and unembed are all False; set one to True")
            return
        names = self.target_modules
        if isinstance(names, str) or not isinstance(names, Sequence) or not all(isinstance(n, str) for n in names):
            hint = "; for all layers but the head, give unembed=False instead" if names == "all-linear" else ""
            raise ConfigError(f"target_modules is {names!r}, expected a list of names of layers{hint}")
        if not names or not all(names):
            raise ConfigError(f"target_modules is {list(names)!r}, expected at least one name, and no empty one")
        self._set(target_modules=tuple(dict.fromkeys(names)))
        given = [kind for kind in _KINDS if getattr(self, kind) is not None]
        if given:
            raise ConfigError(
                f"target_modules names the layers that carry LoRA, and {given[0]}={getattr(self, given[0])} selects "
                "them too; give one of the two"
            )

    def _set(self, **values: Any) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)  # the class is frozen

    def __str__(self) -> str:
        """Return the options as the call that makes them, without those that have their default."""
        defaults = {**asdict(LoraOptions()), "rank": None}
        values = {"target_modules": None, **self.record()}
        shown = [f"{name}={value!r}" for name, value in values.items() if value is not None and value != defaults[name]]
        return f"LoraOptions({', '.join(sorted(shown, key=lambda text: not text.startswith('rank=')))})"

    @property
    def scaling(self) -> float:
        """The factor of the update, :math:`s`."""
        return self.alpha / (math.sqrt(self.rank) if self.rslora else self.rank)

    def record(self) -> dict[str, Any]:
        """Return the options as JSON holds them; ``LoraOptions(**record)`` equals these."""
        values = {name: value for name, value in asdict(self).items() if value is not None}
        return values if self.target_modules is None else {**values, "target_modules": list(self.target_modules)}


def merge_rank(rank: int | None, lora: LoraOptions | None, default: int) -> LoraOptions:
    """Return ``lora``, or without it the options of this rank.

    Args:
        rank: The short form of ``LoraOptions(rank)``; None if it is not given.
        lora: The options; None if they are not given.
        default: The rank if neither is given.

    Raises:
        ConfigError: If the rank is not a whole number from 1 up, ``lora`` is something else, or both disagree.
    """
    if lora is None:
        return LoraOptions(default if rank is None else rank)
    if not isinstance(lora, LoraOptions):
        raise ConfigError(f"lora is {lora!r}, expected mint_lab.LoraOptions(rank=16, ...)")
    if rank is not None and LoraOptions(rank).rank != lora.rank:
        raise ConfigError(f"rank is {rank}, but lora has rank {lora.rank}; give one of the two")
    return lora


def refuse_hosted(lora: LoraOptions) -> None:
    """Check that a hosted service can train with these options.

    Raises:
        ConfigError: If an option is not its own, by name.
    """
    fixed = {"alpha": DEFAULT_ALPHA, "dropout": 0, "rslora": False, "target_modules": None}
    refused = [name for name, value in fixed.items() if getattr(lora, name) != value]
    if refused:
        raise ConfigError(
            f"a hosted service does not take {' and '.join(refused)} of lora: it trains with alpha={DEFAULT_ALPHA} and "
            "without dropout; give rank, attn, mlp and unembed only, or train on this machine"
        )


def adapter_folder(name: Any) -> Path | None:
    """Return the folder if ``name`` is that of an adapter in PEFT's layout, otherwise None."""
    if not isinstance(name, str) or not name:
        return None
    folder = Path(name).expanduser()
    return folder if (folder / ADAPTER_CONFIG).is_file() else None


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)
