"""``show_tokens``: which numbers it shows, what it refuses, and that it changes nothing."""

from __future__ import annotations

from contextlib import closing
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import mint_lab as ml
from mint_lab.charts.colour_scale import hexadecimal
from mint_lab.charts.palette import TOKENS
from mint_lab.charts.token_strips import strips_html, strips_picture
from mint_lab.client.training import TrainingClient
from mint_lab.errors import ConfigError
from mint_lab.types import Datum
from mint_lab.ui.pictures import strips_of
from mint_lab.ui.token_view import TokenView, show_tokens
from tests.charts.runs import colours, count, image_of
from tests.engine.batches import datum


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


def test_labelled_completions_are_shown_one_by_one(client: TrainingClient) -> None:
    """A loss on pairs that also reads labels takes single datums then, an odd number too."""
    data = ml.data.unpaired_to_data(ml.data.arithmetic_pairs(2), client.get_tokenizer())[:3]
    view = show_tokens(data, client, loss="kto")
    assert [row["role"] for row in view.tokens["rows"]] == ["", "", ""]
    gradients = column(view, "gradient")
    start = 0
    for row, sign in zip(view.tokens["rows"], (-1, 1, -1), strict=True):  # desirable, undesirable, desirable
        own = np.nan_to_num(gradients[start : start + row["length"]])
        assert np.sign(own.sum()) == sign
        start += row["length"]


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


# -- without a model --------------------------------------------------------------------------------------------------

LETTERS = SimpleNamespace(decode=lambda ids: chr(96 + ids[0]))
PAIR = [datum([1, 2, 3, 4], [0, 1, 1]), datum([1, 2, 5], [0, 1])]


def made_up(*names: str, but: str = "") -> Any:
    """The result of a pass: log-probabilities -1, -2, .. and gradients 1, 2, ..; the last datum lacks ``but``."""
    signs = {"logprobs": -1.0, "gradients": 1.0}
    outputs = [{name: [signs[name] * (i + 1) for i in range(n)] for name in names} for n in (3, 2)]
    outputs[-1].pop(but, None)
    return SimpleNamespace(loss_fn_outputs=outputs)


def test_numbers_of_a_result_are_shown_if_every_datum_has_them() -> None:
    def names(result: Any) -> list[str]:
        with closing(show_tokens(PAIR, LETTERS, result=result)) as view:
            return [c["name"] for c in view.tokens["columns"]]

    assert names(made_up("logprobs", "gradients")) == ["gradient", "logprob", "weight"]
    assert names(made_up("logprobs", "gradients", but="gradients")) == ["logprob", "weight"]
    assert names(SimpleNamespace(loss_fn_outputs=[])) == ["weight"]
    with closing(show_tokens(PAIR, LETTERS, result=made_up("logprobs", "gradients"))) as view:
        np.testing.assert_array_equal(column(view, "gradient"), [np.nan, 1, 2, 3, np.nan, 1, 2])
        np.testing.assert_array_equal(column(view, "logprob"), [np.nan, -1, -2, -3, np.nan, -1, -2])


def test_given_values_replace_computed_ones_and_spare_the_model_a_pass() -> None:
    class Client:
        """A training client that must not be asked for log-probabilities."""

        forward = None

        def get_tokenizer(self) -> Any:
            return LETTERS

    values = {"logprob": [[-5, -6, -7], [-8, -9]]}
    with closing(show_tokens(PAIR, Client(), values=values, result=made_up("logprobs"))) as view:
        np.testing.assert_array_equal(column(view, "logprob"), [np.nan, -5, -6, -7, np.nan, -8, -9])
        assert view.tokens["texts"] == ["a", "b", "c", "d", "e"]
    with closing(show_tokens(PAIR, Client(), result=made_up("logprobs"))) as view:
        assert column(view, "logprob")[1] == -1


def test_arguments_reach_the_message() -> None:
    options: dict[str, Any] = {"values": {"mine": [[1, 2, 3], [4, 5]]}, "by": "mine", "titles": ["x", "y"]}
    with closing(show_tokens(tuple(PAIR), None, pairs=False, **options)) as view:
        assert (view.tokens["by"], view.tokens["about"], view.tokens["step"]) == ("mine", "", None)
        assert [(row["title"], row["role"]) for row in view.tokens["rows"]] == [("x", ""), ("y", "")]
        assert view.tokens["texts"][0] == "⟨1⟩"
    with closing(show_tokens([PAIR[0], datum([7, 8], [1])], None, pairs=True)) as view:
        assert [row["role"] for row in view.tokens["rows"]] == ["chosen", "rejected"]


def test_outputs_show_the_tokens_of_the_view() -> None:
    with closing(show_tokens(PAIR, LETTERS, result=made_up("gradients"), titles=["<b>mine</b>"])) as view:
        bundle, metadata = view._repr_mimebundle_()
        strips = strips_of(view.tokens)  # type: ignore[arg-type]
        assert (bundle["text/html"], metadata) == (strips_html(strips), {})
        assert "&lt;b&gt;mine&lt;/b&gt;" in bundle["text/html"]
        assert bundle["image/png"] == strips_picture(strips)
        assert count(colours(image_of(bundle["image/png"])), hexadecimal(TOKENS["light"]["above"]), 12) > 100
        assert bundle["application/vnd.jupyter.widget-view+json"]["model_id"] == view.model_id
