"""The parts of the model card, and the card that is checked in."""

from __future__ import annotations

from pathlib import Path

from mint_lab import tiny
from mint_lab.tiny.card import sha256, sparkline, write_card


def test_sparkline() -> None:
    assert sparkline([0, 7, 3.5]) == "▁█▅"
    assert sparkline([2.0, 2.0]) == "▁▁"
    assert sparkline([]) == ""


def test_sha256_of_a_known_text(tmp_path: Path) -> None:
    file = tmp_path / "abc"
    file.write_bytes(b"abc")
    assert sha256(file) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_card_contains_its_arguments(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"abc")
    (tmp_path / "tokenizer.json").write_text("{}")
    write_card(
        tmp_path,
        command="python -m made.up",
        seconds=12.4,
        facts={"seed": 7},
        curve=[(1, 6.5), (10, 0.5)],
        report={"addition": 0.5},
    )
    card = (tmp_path / "MODEL_CARD.md").read_text(encoding="utf-8")
    for part in (
        "`python -m made.up`",
        "| seed | 7 |",
        "| training time | 12 s |",
        "| 10 | 0.5000 |",
        "| addition | 0.500 |",
        "3 bytes, sha256 `ba7816bf",
        "`█▁`",
    ):
        assert part in card


def test_bundled_card_has_the_text_that_write_card_writes(tmp_path: Path) -> None:
    """The weights are not trained again when the card's words change, so the two texts could drift apart."""
    for name in ("model.safetensors", "tokenizer.json"):
        (tmp_path / name).write_bytes((tiny.path() / name).read_bytes())
    write_card(tmp_path, command="c", seconds=1.0, facts={}, curve=[(1, 1.0)], report={})
    written, bundled = (
        [line for line in (folder / "MODEL_CARD.md").read_text(encoding="utf-8").splitlines() if _is_prose(line)]
        for folder in (tmp_path, tiny.path())
    )
    assert written == bundled
    assert len(written) > 20


def _is_prose(line: str) -> bool:
    """Return True for lines that do not depend on the run: no table, sparkline, command or versions."""
    return not line.startswith(("|", "`", "Trained by", "Versions:")) and bool(line)
