"""``show_tokens(...)``: sequences whose tokens are coloured by a number."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import traitlets

from ..charts.token_strips import strips_html, strips_picture
from ..errors import ConfigError
from .bundle import widget_view
from .messages import Tokens
from .page_widget import PageWidget
from .pictures import strips_of
from .tokens import tokens_message

if TYPE_CHECKING:
    from ..losses import LossSpec
    from ..types import Datum, ForwardBackwardOutput

__all__ = ["TokenView", "show_tokens"]


class TokenView(PageWidget):
    """Show tokens; :func:`show_tokens` creates one.

    Attributes:
        part: The widget of the bundle; fixed by the class.
        tokens: See :class:`~mint_lab.ui.messages.Tokens`; they do not change.
    """

    part = traitlets.Unicode("token_view", read_only=True).tag(sync=True)
    tokens = traitlets.Dict().tag(sync=True)

    def __init__(self, tokens: Tokens) -> None:
        super().__init__(tokens=tokens)

    def __repr__(self) -> str:
        rows = self.tokens["rows"]
        count = sum(row["length"] for row in rows)
        return f"TokenView({len(rows)} sequences, {count} tokens, by={self.tokens['by']!r})"

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the live widget, a text, and for readers without a kernel a picture and HTML without scripts."""
        self.show_on_page()
        strips = strips_of(cast(Tokens, self.tokens))
        return {
            "text/plain": repr(self),
            "text/html": strips_html(strips),
            "image/png": strips_picture(strips),
            **widget_view(self.model_id),
        }, {}


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
    """Show ``data`` with every token coloured by a number; the page has a select for the other numbers.

    >>> ml.show_tokens(data, client)                                            # log-probabilities  # doctest: +SKIP
    >>> ml.show_tokens(data, client, loss="dpo")                                # and dLoss/dlogprob  # doctest: +SKIP
    >>> ml.show_tokens(data, tokenizer, result=out)       # of an earlier forward_backward       # doctest: +SKIP

    The fields of the datums are shown as ``weight``, ``advantage``, ``sampling_logprob`` (their ``logprobs``) and
    ``reference_logprob``. With log-probabilities at the current weights there are also ``logprob``, ``ratio`` (to the
    sampler) and ``reference_log_ratio`` (nats).

    Args:
        data: Datums with ``target_tokens``; consecutive (chosen, rejected) pairs are shown side by side.
        source: A training client, which provides the texts and, unless ``result`` or ``values`` does, ``logprob``; or a
            tokenizer; or None, which shows token ids.
        by: Name of the number that colours; None for ``gradient`` if it is there, otherwise for the first number.
        loss: A name of ``LOSSES``, a ``LossSpec``, or a function in the custom call form, whose dLoss/dlogprob is shown
            as ``gradient``. Needs a training client; its weights and accumulated gradient do not change.
        loss_config: Settings of the loss.
        result: Result of ``forward``, ``forward_backward`` or ``forward_backward_custom`` on ``data``; with
            ``return_gradients=True`` it also has gradients.
        values: Further numbers by name: one array (list, tensor, TensorData) of shape ``(N_i,)`` per datum.
        pairs: Whether the datums are consecutive (chosen, rejected) pairs; None: decide by their prompts.
        titles: One per item (a pair, or a datum).

    Raises:
        ConfigError: If a loss is given without a training client, ``loss`` or ``by`` is unknown, or the number of
            titles is wrong.
        DataError: If there are no datums, one of them is something else, or an array has the wrong length.
        LossError: If the loss is not a scalar with a gradient.
    """
    items: list[Any] = list(data) if isinstance(data, list | tuple) else [data]
    client = source if hasattr(source, "forward") else None
    if loss is not None and client is None:
        raise ConfigError(f"the gradient of a loss needs a training client, found {type(source).__name__}")
    columns: dict[str, Sequence[Any]] = {}
    about = ""
    if result is not None:
        columns |= _columns_of_result(result)
    if loss is not None:
        from ..client.gradients import loss_spec, token_gradients

        spec = loss_spec(loss)
        computed = token_gradients(client, items, spec, loss_config)  # type: ignore[arg-type]  # checked above
        items, about = computed.data, spec.label
        columns |= {"logprob": computed.logprobs, "gradient": computed.gradients}
        labelled = any("label" in datum.loss_fn_inputs for datum in items)  # then a loss on pairs takes single datums
        pairs = True if pairs is None and spec.unit == "pair" and not labelled else pairs
    elif client is not None and "logprob" not in {**columns, **(values or {})}:
        from ..client.gradients import token_logprobs

        columns["logprob"] = token_logprobs(client, items)
    tokenizer = source.get_tokenizer() if hasattr(source, "get_tokenizer") else source
    if tokenizer is not None and not hasattr(tokenizer, "decode"):
        raise ConfigError(f"source is {type(source).__name__}, expected a tokenizer, a training client or None")
    columns |= values or {}
    return TokenView(tokens_message(items, tokenizer, columns, by=by, pairs=pairs, titles=titles, about=about))


def _columns_of_result(result: ForwardBackwardOutput) -> dict[str, Sequence[Any]]:
    """Return ``logprob`` and ``gradient``, each if every output has it."""
    outputs = getattr(result, "loss_fn_outputs", None)
    if outputs is None:
        raise ConfigError(f"result is {type(result).__name__}, expected what forward_backward(...).result() returns")
    names = {"logprobs": "logprob", "gradients": "gradient"}
    return {
        name: [output[key] for output in outputs]
        for key, name in names.items()
        if outputs and all(key in output for output in outputs)
    }
