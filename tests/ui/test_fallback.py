from __future__ import annotations

import io

from PIL import Image

from mint_lab.ui.fallback import picture
from mint_lab.ui.publisher import Publisher
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
