"""``show_tokens``: which numbers it shows, what it refuses, and that it changes nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import mint_lab as ml
from mint_lab.charts.colour_scale import hexadecimal
from mint_lab.charts.palette import TOKENS
from mint_lab.client.training import TrainingClient
from mint_lab.errors import ConfigError
from mint_lab.types import Datum
from mint_lab.ui.token_view import TokenView, show_tokens
from tests.charts.runs import colours, count, image_of


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


def test_loss_adds_logprobs_and_gradients_and_changes_nothing(client: TrainingClient, pairs: list[Datum]) -> None:
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


def test_client_adds_logprobs_and_a_tokenizer_shows_the_fields(client: TrainingClient, pairs: list[Datum]) -> None:
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


def test_unusable_arguments_are_refused_with_the_reason(client: TrainingClient, pairs: list[Datum]) -> None:
    with pytest.raises(ConfigError, match="needs a training client, found NoneType"):
        show_tokens(pairs, loss="pairwise_preference")
    with pytest.raises(ConfigError, match="source is str, expected a tokenizer"):
        show_tokens(pairs, "mint-tiny")
    with pytest.raises(ConfigError, match="result is list, expected what forward_backward"):
        show_tokens(pairs, client.get_tokenizer(), result=[1])  # type: ignore[arg-type]


def test_output_has_text_html_and_picture(client: TrainingClient, pairs: list[Datum]) -> None:
    view = show_tokens(pairs, client, loss="pairwise_preference")
    bundle, _ = view._repr_mimebundle_()
    assert set(bundle) == {"text/plain", "text/html", "image/png", "application/vnd.jupyter.widget-view+json"}
    assert bundle["text/plain"] == repr(view)
    seen = colours(image_of(bundle["image/png"]))
    for end in ("below", "above"):  # the strongest gradients of a pair are opposite and equal
        assert count(seen, hexadecimal(TOKENS["light"][end]), 12) > 100, end
    view.close()
