from __future__ import annotations

import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

import mint_lab as ml
from mint_lab.client.training import TrainingClient
from mint_lab.errors import ConfigError
from mint_lab.types import Datum
from mint_lab.ui.colours import BLUE, INK, ORANGE, WHITE, background, place
from mint_lab.ui.protocol import TokenColumn
from mint_lab.ui.token_fallback import html_of, picture_of
from mint_lab.ui.token_view import TokenView, show_tokens
from mint_lab.ui.tokens import tokens_message

from ..engine.batches import datum

HOSTILE = ["<img src=x onerror=alert(1)>", "</div></script>", '"><b>', "\u202egnp.exe", "w" * 10_000, "\x00", "&amp;"]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> TrainingClient:
    service = ml.ServiceClient(tmp_path_factory.mktemp("home"))
    return service.create_lora_training_client("mint-tiny", rank=2, seed=0)


@pytest.fixture(scope="module")
def pairs(client: TrainingClient) -> list[Datum]:
    return ml.data.pairs_to_data(ml.data.arithmetic_pairs(2), client.get_tokenizer())


def column(view: TokenView, name: str) -> Any:
    names = [c["name"] for c in view.tokens["columns"]]
    return np.frombuffer(view.tokens["values"], dtype="<f4").reshape(len(names), -1)[names.index(name)]


def test_one_call_gives_log_probabilities_and_gradients_and_changes_nothing(
    client: TrainingClient, pairs: list[Datum]
) -> None:
    view = ml.show_tokens(pairs, client, loss="pairwise_preference", loss_config={"beta": 2.0})
    assert client._adapter.gradients is None
    count = sum(d.model_input.length + 1 for d in pairs)
    assert repr(view) == f"TokenView(4 sequences, {count} tokens, by='gradient')"
    assert view.tokens["about"] == "pairwise_preference v1"
    spec = ml.LOSSES["pairwise_preference"]
    out = client.forward_backward_custom(pairs, spec.bind({"beta": 2.0}), return_gradients=True).result()
    client._adapter.gradients = None
    again = ml.show_tokens(pairs, client.get_tokenizer(), result=out)
    for name in ("gradient", "logprob"):
        np.testing.assert_allclose(column(view, name), column(again, name), rtol=1e-5, atol=1e-7)
    view.close()
    again.close()


def test_a_client_alone_gives_log_probabilities_and_a_tokenizer_what_the_datums_hold(
    client: TrainingClient, pairs: list[Datum]
) -> None:
    view = show_tokens(pairs, client)
    assert [c["name"] for c in view.tokens["columns"]] == ["logprob", "weight"]
    (logprobs,) = [
        output["logprobs"].to_numpy() for output in client.forward(pairs[:1], "cross_entropy").result().loss_fn_outputs
    ]
    np.testing.assert_allclose(column(view, "logprob")[1 : 1 + len(logprobs)], logprobs, rtol=1e-5, atol=1e-6)
    view.close()
    one = show_tokens(pairs[0], client.get_tokenizer(), by="weight")
    assert repr(one) == f"TokenView(1 sequences, {pairs[0].model_input.length + 1} tokens, by='weight')"
    one.close()


def test_what_cannot_be_shown_is_refused_with_the_reason(client: TrainingClient, pairs: list[Datum]) -> None:
    with pytest.raises(ConfigError, match="needs a training client, found NoneType"):
        show_tokens(pairs, loss="pairwise_preference")
    with pytest.raises(ConfigError, match="source is str, expected a tokenizer"):
        show_tokens(pairs, "mint-tiny")
    with pytest.raises(ConfigError, match="result is list, expected what forward_backward"):
        show_tokens(pairs, client.get_tokenizer(), result=[1])  # type: ignore[arg-type]


def test_every_reader_gets_something(client: TrainingClient, pairs: list[Datum]) -> None:
    view = show_tokens(pairs, client, loss="pairwise_preference")
    bundle, _ = view._repr_mimebundle_()
    assert set(bundle) == {"text/plain", "text/html", "image/png", "application/vnd.jupyter.widget-view+json"}
    assert bundle["text/plain"] == repr(view)
    image = Image.open(io.BytesIO(bundle["image/png"])).convert("RGB")
    seen = {colour for count, colour in image.getcolors(1 << 24) or [] if count > 100}
    for wanted in (BLUE, ORANGE):  # the strongest gradients of a pair are opposite and equal
        assert any(max(abs(a - b) for a, b in zip(wanted, colour, strict=True)) < 12 for colour in seen), wanted
    view.close()


class Elements(HTMLParser):
    """What a browser would make of it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_hostile_tokens_are_text_in_the_static_page_and_do_not_grow_it() -> None:
    tokens = list(range(len(HOSTILE)))
    tokenizer = SimpleNamespace(decode=lambda ids: HOSTILE[ids[0]])
    data = [datum(tokens, [0.0, *[1.0] * (len(tokens) - 2)])]
    message = tokens_message(data, tokenizer, {}, titles=["<script>x</script>\u202e"])
    text = html_of(message)
    elements = Elements(text)
    assert {tag for tag, _ in elements.found} == {"div", "b", "span", "bdi"}
    assert {name for _, attributes in elements.found for name in attributes} == {"class", "style", "title"}
    shown = "".join(elements.texts)
    assert HOSTILE[0][:32] in shown
    assert "⟨U+202E⟩gnp.exe" in shown
    assert not re.search("[\u202e\x00]|w{40}", text)
    assert len(text) < 6000
    assert Image.open(io.BytesIO(picture_of(message))).height < 400


def test_numbers_are_in_the_titles_and_long_data_are_cut_with_a_word() -> None:
    data = [datum([1] * 601, [1.0] * 600) for _ in range(9)]
    text = html_of(tokens_message(data, None, {"gradient": [np.full(600, -0.125)] * 9}, pairs=False))
    assert "gradient -0.125" in text
    assert text.count("… 500 more …") == 6
    assert "3 more in a running notebook" in text


@pytest.mark.parametrize("scale", ["diverging", "ratio", "sequential"])
def test_colours_follow_the_numbers_and_text_on_them_can_be_read(scale: Any) -> None:
    low, high = {"diverging": (-2.0, 2.0), "ratio": (0.25, 4.0), "sequential": (-8.0, 0.0)}[scale]
    made = TokenColumn(name="x", unit="", note="", scale=scale, low=low, high=high)
    middle = 1.0 if scale == "ratio" else 0.0
    assert background(middle, made) == WHITE
    assert place(float("nan"), made) is None
    if scale != "sequential":
        assert (background(high, made), background(low, made)) == (ORANGE, BLUE)
        assert place(high * 100, made) == 1
    for value in np.linspace(low, high, 41):
        ground = background(float(value), made)
        assert ground is not None
        assert contrast(ground, INK) >= 4.5


def contrast(one: tuple[int, ...], two: tuple[int, ...]) -> float:
    def luminance(colour: tuple[int, ...]) -> float:
        parts = [c / 255 / 12.92 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    light, dark = sorted((luminance(one), luminance(two)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


TWIN = Path(__file__).parents[2] / "widgets" / "tests" / "colour_twin.json"


def test_the_page_has_the_same_colours() -> None:
    """The same file is read by the page's own tests."""
    for entry in json.loads(TWIN.read_text()):
        made = TokenColumn(name="x", unit="", note="", scale=entry["scale"], low=entry["low"], high=entry["high"])
        assert list(background(entry["value"], made) or ()) == entry["colour"]
