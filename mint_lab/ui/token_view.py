"""``show_tokens(...)``: sequences with every token coloured by a number."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import anywidget
import traitlets

from ..charts.token_strips import strips_html, strips_picture
from ..errors import ConfigError
from .pictures import strips_of
from .protocol import Tokens
from .tokens import tokens_message
from .widget import WIDGET_MIME, bundle

if TYPE_CHECKING:
    from ..losses import LossSpec
    from ..types import Datum, ForwardBackwardOutput

__all__ = ["TokenView", "show_tokens"]


class TokenView(anywidget.AnyWidget):
    """Tokens on display; :func:`show_tokens` makes one.

    Attributes:
        part: which widget of the bundle this is; fixed by the class.
        tokens: see :class:`~mint_lab.ui.protocol.Tokens`; fixed when the view is made.
    """

    _esm = traitlets.Unicode().tag(sync=True)
    part = traitlets.Unicode("token_view", read_only=True).tag(sync=True)
    tokens = traitlets.Dict().tag(sync=True)

    def __init__(self, tokens: Tokens) -> None:
        super().__init__(tokens=tokens)

    def __repr__(self) -> str:
        rows = self.tokens["rows"]
        count = sum(row["length"] for row in rows)
        return f"TokenView({len(rows)} sequences, {count} tokens, by={self.tokens['by']!r})"

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """The live widget, a fixed text, and for readers without a kernel HTML without a script and a picture."""
        strips = strips_of(cast(Tokens, self.tokens))
        return {
            "text/plain": repr(self),
            "text/html": strips_html(strips),
            "image/png": strips_picture(strips),
            WIDGET_MIME: {"version_major": 2, "version_minor": 1, "model_id": self.model_id},
        }, {}

    @traitlets.default("_esm")
    def _bundle(self) -> str:
        return bundle()


def show_tokens(
    data: Datum | Sequence[Datum],
    source: Any = None,
    *,
    by: str | None = None,
    loss: str | LossSpec | Callable[..., Any] | None = None,
    loss_config: Mapping[str, float] | None = None,
    result: ForwardBackwardOutput | None = None,
    values: Mapping[str, Sequence[Any]] | None = None,
    pairs: bool | None = None,
    titles: Sequence[str] | None = None,
) -> TokenView:
    """Draw ``data`` with every token coloured by a number; the page has a select for the others.

    >>> ml.show_tokens(data, client)                                            # log-probabilities  # doctest: +SKIP
    >>> ml.show_tokens(data, client, loss="dpo")                                # and dLoss/dlogprob  # doctest: +SKIP
    >>> ml.show_tokens(data, tokenizer, result=out)       # of a forward_backward that was made  # doctest: +SKIP

    What the datums hold comes by itself: ``weight``, ``advantage``, ``sampling_logprob`` (their ``logprobs``),
    ``reference_logprob``. With log-probabilities under the present weights there are also ``logprob``, ``ratio`` (to
    the sampler) and ``reference_log_ratio`` (nats).

    Args:
        data: datums with ``target_tokens``; consecutive (chosen, rejected) pairs are shown side by side.
        source: a training client, which gives the texts and, unless ``result`` or ``values`` does, ``logprob``; or a
            tokenizer; or None, which shows token ids.
        by: name of the number that colours; None for ``gradient`` where there is one, else the first there is.
        loss: a name of ``LOSSES``, a ``LossSpec`` or a function in the custom contract, whose dLoss/dlogprob is shown
            as ``gradient``. Needs a training client, whose weights and accumulated gradient are left as they are.
        loss_config: settings of the loss.
        result: of ``forward``, ``forward_backward`` or ``forward_backward_custom`` on ``data``; made with
            ``return_gradients=True`` it also has gradients.
        values: further numbers by name, one array (list, tensor, TensorData) of shape ``(N_i,)`` a datum.
        pairs: whether datums are consecutive (chosen, rejected); None looks at their prompts.
        titles: one an item, a pair or a datum.

    Raises:
        ConfigError: a loss without a training client, an unknown loss or ``by``, or titles of another number.
        DataError: no datums, something that is none, or numbers of another length.
        LossError: the loss is no scalar with a gradient.
    """
    items: list[Any] = list(data) if isinstance(data, list | tuple) else [data]
    client = source if hasattr(source, "forward") else None
    if loss is not None and client is None:
        raise ConfigError(f"the gradient of a loss needs a training client, found {type(source).__name__}")
    known: dict[str, Sequence[Any]] = {}
    about = ""
    if result is not None:
        known |= _of_result(result)
    if loss is not None:
        from ..client.gradients import loss_spec, token_gradients

        spec = loss_spec(loss)
        found = token_gradients(client, items, spec, loss_config)  # type: ignore[arg-type]  # not None, as seen above
        items, about = found.data, spec.label
        known |= {"logprob": found.logprobs, "gradient": found.gradients}
        pairs = True if pairs is None and spec.unit == "pair" else pairs
    elif client is not None and "logprob" not in {**known, **(values or {})}:
        from ..client.gradients import token_logprobs

        known["logprob"] = token_logprobs(client, items)
    tokenizer = source.get_tokenizer() if hasattr(source, "get_tokenizer") else source
    if tokenizer is not None and not hasattr(tokenizer, "decode"):
        raise ConfigError(f"source is {type(source).__name__}, expected a tokenizer, a training client or None")
    known |= values or {}
    return TokenView(tokens_message(items, tokenizer, known, by=by, pairs=pairs, titles=titles, about=about))


def _of_result(result: ForwardBackwardOutput) -> dict[str, Sequence[Any]]:
    """``logprob`` and, where every output has it, ``gradient``."""
    outputs = getattr(result, "loss_fn_outputs", None)
    if outputs is None:
        raise ConfigError(f"result is {type(result).__name__}, expected what forward_backward(...).result() gives")
    names = {"logprobs": "logprob", "gradients": "gradient"}
    return {
        name: [output[key] for output in outputs]
        for key, name in names.items()
        if outputs and all(key in output for output in outputs)
    }
