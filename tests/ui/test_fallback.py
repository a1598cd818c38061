from __future__ import annotations

import io

import pytest
from PIL import Image

from mint_lab.losses import LOSSES
from mint_lab.recipes.record import StepRecord, histogram
from mint_lab.ui.fallback import picture
from mint_lab.ui.publisher import Publisher
from mint_lab.ui.samples import samples_of
from tests.ui.scripted import ScriptedRun, record


def drawn(*, steps: int, **extra: float) -> Image.Image:
    run = ScriptedRun(steps)
    run.baseline = dict(record(10).held_out)
    publisher = Publisher(run, lambda message, buffers: None)
    run.append(*(record(step, steps, **extra) for step in range(1, steps + 1)))
    image = Image.open(io.BytesIO(picture(publisher.snapshot())))
    publisher.close()
    return image.convert("RGB")


def colours(image: Image.Image) -> set[tuple[int, int, int]]:
    return {colour for count, colour in image.getcolors(1 << 24) or [] if count > 20}  # type: ignore[misc]


def test_the_picture_has_every_curve_in_its_colour() -> None:
    image = drawn(steps=60)
    assert image.width > 1200
    seen = colours(image)
    for wanted in ((0, 114, 178), (230, 159, 0), (0, 158, 115), (213, 94, 0)):
        assert any(max(abs(a - b) for a, b in zip(wanted, colour, strict=True)) < 14 for colour in seen), wanted


def test_the_curves_move_when_the_numbers_do() -> None:
    assert drawn(steps=60).tobytes() != drawn(steps=60, loss=5.0).tobytes()


def test_a_run_of_any_length_can_be_drawn() -> None:
    for steps in (1, 2, 3000):
        assert drawn(steps=steps).height > 400


def test_numbers_that_are_none_do_not_stop_it() -> None:
    assert drawn(steps=5, loss=float("nan"), grad_norm=float("inf")).height > 400


def ratios(step: int, loss: str, **settings: float) -> StepRecord:
    """Forty tokens a side, half of them within PPO's limits and half far beyond."""
    rise, fall = [0.0] * 20 + [0.6] * 20, [0.0] * 20 + [-0.6] * 20
    sample = {"source": "training", "prompt": "2 + 2", "response": " 4", "reward": 1.0, "advantage": 0.5}
    return StepRecord(
        step=step,
        time=0.0,
        step_time=0.1,
        tokens=80,
        loss_name=loss,
        loss_version=1,
        metrics={"reward": 0.5 + 0.01 * step, "reward_std": 0.4, "loss": 1.0},
        histograms={
            "log_ratio/positive": histogram(rise, "log_ratio/positive"),
            "log_ratio/negative": histogram(fall, "log_ratio/negative"),
        },
        settings=settings,
        samples=[{**sample, "tokens": [" 4", "<end>"], "ratio": [2.0, 1.0], "clipped": [True, False]}],
    )


def drawn_ratios(loss: str, *, samples: bool = False) -> Image.Image:
    run = ScriptedRun(10, recipe="rl")
    run.loss, run._config = LOSSES[loss], LOSSES[loss].config()
    publisher = Publisher(run, lambda message, buffers: None)
    made = [ratios(step, loss, **run._config) for step in range(1, 6)]
    run.append(*made)
    image = Image.open(io.BytesIO(picture(publisher.snapshot(), samples_of(made[-1]) if samples else None)))
    publisher.close()
    return image.convert("RGB")


def pixels(image: Image.Image, wanted: tuple[int, int, int]) -> int:
    """Pixels of about this colour in the panel of ratios, the second and third third of the first row."""
    panel = image.crop((image.width // 3, 60, image.width, 380))
    found: list[tuple[int, tuple[int, int, int]]] = panel.getcolors(1 << 24) or []  # type: ignore[assignment]
    return sum(n for n, colour in found if max(abs(a - b) for a, b in zip(wanted, colour, strict=True)) < 8)


def test_the_ratios_are_drawn_with_what_the_loss_clips() -> None:
    ppo, cispo, free = (drawn_ratios(loss) for loss in ("ppo", "cispo", "importance_sampling"))
    assert ppo.size == cispo.size == free.size
    for ground in ((224, 243, 238), (250, 236, 224)):  # about an eighth of the colour of each sign
        assert pixels(ppo, ground) > 2000
        assert pixels(cispo, ground) > 1.5 * pixels(ppo, ground)  # both sides of both signs
        assert pixels(free, ground) < 0.1 * pixels(ppo, ground)
    # Hatching leaves less of the full colour than bars that all get through.
    for colour in ((0, 158, 115), (213, 94, 0)):
        assert 0 < pixels(ppo, colour) < 0.8 * pixels(free, colour)


def test_responses_stand_below_the_charts() -> None:
    alone, both = drawn_ratios("ppo"), drawn_ratios("ppo", samples=True)
    assert both.width == alone.width
    assert both.height > alone.height + 60
    below = both.crop((0, alone.height, both.width, both.height))
    assert len(below.getcolors(1 << 24) or []) > 5


@pytest.mark.parametrize("recipe", ["rl", "preference"])
def test_a_run_that_kept_nothing_can_be_drawn(recipe: str) -> None:
    publisher = Publisher(ScriptedRun(10, recipe=recipe), lambda message, buffers: None)
    assert picture(publisher.snapshot()).startswith(b"\x89PNG")
    publisher.close()
