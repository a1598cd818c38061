"""A white sheet on which static pictures are drawn with matplotlib, and its PNG.

Pictures are drawn on threads of their own, beside whatever a person draws with pyplot. So nothing here touches
matplotlib's global state: figures are made without pyplot, rcParams are not changed, and every artist gets its look
explicitly, because a person's rcParams are their own matter. matplotlib is imported when the first picture is drawn.
"""

from __future__ import annotations

import functools
import io
import threading
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from .palette import BASE

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.font_manager import FontProperties

__all__ = ["GRID", "INK", "MUTED", "WIDTH", "Box", "Sheet", "drawable", "drawing"]

P = ParamSpec("P")
R = TypeVar("R")

WIDTH = 1080
"""Width of every picture in units; text is 11 to 13 high. A unit is 1.5 pixels: pictures are sharp on dense screens."""

INK, MUTED, GRID = (BASE["light"][name] for name in ("text", "muted", "grid"))
SURFACE = BASE["light"]["surface"]

_UNITS_PER_INCH = 100
_DPI = 150
_POINTS = 72 / _UNITS_PER_INCH  # points in a unit
_COLOURS = 256  # of the PNG
_UNKNOWN = "\N{WHITE SQUARE}"
_ACROSS: dict[str, Any] = {"l": "left", "m": "center", "r": "right"}
_UP: dict[str, Any] = {"t": "top", "m": "center", "b": "bottom"}
_LOCK = threading.RLock()


def drawing(function: Callable[P, R]) -> Callable[P, R]:
    """Let one thread at a time draw: matplotlib's caches of fonts and glyphs are not made for several."""

    @functools.wraps(function)
    def alone(*args: P.args, **kwargs: P.kwargs) -> R:
        with _LOCK:
            return function(*args, **kwargs)

    return alone


@dataclass(frozen=True)
class Box:
    """A rectangle of a sheet, in units."""

    left: float
    top: float
    width: float
    height: float


class Sheet:
    """A sheet of :data:`WIDTH` by ``height`` units; (0, 0) is its upper left corner. What comes later lies on top."""

    def __init__(self, height: float) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.transforms import Affine2D

        size = (WIDTH / _UNITS_PER_INCH, height / _UNITS_PER_INCH)
        none: Any = "none"  # None would be what rcParams say; matplotlib's own annotation forgets this value
        self._figure = Figure(figsize=size, dpi=_DPI, facecolor=SURFACE, edgecolor=SURFACE, linewidth=0, layout=none)
        self._canvas: Any = FigureCanvasAgg(self._figure)
        pixels = _DPI / _UNITS_PER_INCH
        self._to_pixels = Affine2D().scale(pixels, -pixels).translate(0, height * pixels)

    def path(
        self,
        x: Sequence[float],
        y: Sequence[float],
        colour: str,
        width: float,
        *,
        dashes: Sequence[float] = (),
        marker: float = 0,
        within: Box | None = None,
    ) -> None:
        """Draw a path.

        Args:
            width: Of the path, in units.
            dashes: Lengths of strokes and gaps in units, in turn; none: a solid path.
            marker: Diameter of a point at each corner; 0: none.
            within: What lies outside of this rectangle is not drawn.
        """
        from matplotlib.lines import Line2D

        points = width * _POINTS
        artist = Line2D(
            x,
            y,
            color=colour,
            linewidth=points,
            # matplotlib counts dashes in widths of the line
            linestyle=(0, tuple(length * _POINTS / points for length in dashes)) if dashes else "-",
            marker="o" if marker else "None",
            markersize=marker * _POINTS,
            markerfacecolor=colour,
            markeredgecolor=colour,
            markeredgewidth=0,
            fillstyle="full",
            antialiased=True,
            drawstyle="default",
            solid_capstyle="round",
            solid_joinstyle="round",
            dash_capstyle="butt",
            dash_joinstyle="round",
        )
        self._add(artist, within)

    def area(
        self, corners: Sequence[tuple[float, float]], colour: str, *, hatch: str = "", within: Box | None = None
    ) -> None:
        """Fill a polygon with a colour, and with slanted lines of the colour ``hatch``."""
        from matplotlib.patches import Polygon

        patch = Polygon(corners, closed=True, facecolor=colour, edgecolor=hatch or "none", linewidth=0)
        patch.set_antialiased(True)
        if hatch:
            patch.set_hatch("/////")
        self._add(patch, within)

    def box(self, box: Box, colour: str, *, hatch: str = "", within: Box | None = None) -> None:
        """Fill a rectangle."""
        self.area(_corners(box), colour, hatch=hatch, within=within)

    def boxes(self, boxes: Sequence[tuple[Box, str]]) -> None:
        """Fill many rectangles, each with its colour, sharply."""
        from matplotlib.collections import PolyCollection

        corners = [_corners(box) for box, _ in boxes]
        colours = [colour for _, colour in boxes]
        patches = PolyCollection(corners, facecolors=colours, edgecolors="none", linewidths=0, antialiaseds=False)
        self._add(patches, None)

    def text(
        self,
        x: float,
        y: float,
        text: str,
        *,
        colour: str = INK,
        size: float = 11,
        anchor: str = "lt",
        mono: bool = False,
        limit: float | None = None,
    ) -> str:
        """Write one line of text and return it as it was drawn, for :meth:`width_of`.

        Args:
            anchor: The point of the text that is at (x, y): "l", "m" or "r", then "t", "m" or "b".
            mono: True for a font whose characters have one width.
            limit: Width that the text is truncated to; None: as wide as it is.
        """
        from matplotlib.text import Text

        text = drawable(text, mono=mono)
        if limit is not None:
            text = self._truncated(text, size, limit)
        artist = Text(
            x,
            y,
            text,
            color=colour,
            fontproperties=_font(size, mono=mono),
            horizontalalignment=_ACROSS[anchor[0]],
            verticalalignment=_UP[anchor[1]],
            rotation=0,
            usetex=False,
            parse_math=False,  # a name with dollar signs is a name
            antialiased=True,
        )
        self._add(artist, None)
        return text

    def width_of(self, text: str, size: float = 11, *, mono: bool = False) -> float:
        """Return the width of a :func:`drawable` text."""
        renderer = self._canvas.get_renderer()
        width, _, _ = renderer.get_text_width_height_descent(text, _font(size, mono=mono), ismath=False)
        return width * _UNITS_PER_INCH / _DPI

    def _truncated(self, text: str, size: float, limit: float) -> str:
        if self.width_of(text, size) <= limit:
            return text
        fits, too_long = 0, len(text)
        while too_long - fits > 1:
            middle = (fits + too_long) // 2
            short = self.width_of(text[:middle] + "…", size) <= limit
            fits, too_long = (middle, too_long) if short else (fits, middle)
        return text[:fits].rstrip() + "…"

    def png(self) -> bytes:
        """Return the picture; the sheet cannot be used afterwards."""
        from PIL import Image

        self._canvas.draw()
        size = self._canvas.get_width_height()
        image = Image.frombuffer("RGBA", size, self._canvas.buffer_rgba(), "raw", "RGBA", 0, 1).convert("RGB")
        self._canvas.renderer = None  # its pixels, which the cycle of figure and canvas would keep until a collection
        return _png(image)

    def _add(self, artist: Artist, within: Box | None) -> None:
        """Add an artist without what a person's rcParams gave to it, such as the wobble of ``plt.xkcd()``."""
        from matplotlib.transforms import Bbox, TransformedBbox

        artist.set_transform(self._to_pixels)
        artist.set_sketch_params(None)
        artist.set_path_effects([])
        artist.set_zorder(len(self._figure.artists))
        self._figure.add_artist(artist)
        if within is not None:
            bounds = Bbox.from_bounds(within.left, within.top, within.width, within.height)
            artist.set_clip_box(TransformedBbox(bounds, self._to_pixels))


def _corners(box: Box) -> list[tuple[float, float]]:
    right, bottom = box.left + box.width, box.top + box.height
    return [(box.left, box.top), (right, box.top), (right, bottom), (box.left, bottom)]


def _png(image: Any) -> bytes:
    """Return an RGB image as a PNG with a palette, a third of the bytes."""
    from PIL import Image

    # The octree is ten times faster than the median cut, but white becomes (254, 254, 254): the colours of large areas
    # are put back.
    reduced = image.quantize(_COLOURS, method=Image.Quantize.FASTOCTREE)
    palette = reduced.getpalette()
    areas = [colour for _, colour in sorted(image.getcolors(image.width * image.height))[-_COLOURS // 2 :]]
    row = Image.new("RGB", (len(areas), 1))
    row.putdata(areas)
    for place, colour in zip(row.quantize(palette=reduced, dither=Image.Dither.NONE).tobytes(), areas, strict=True):
        palette[3 * place : 3 * place + 3] = colour
    reduced.putpalette(palette)
    file = io.BytesIO()
    reduced.save(file, "PNG")
    return file.getvalue()


@functools.cache
def _font_path(*, mono: bool) -> str:
    """The font that comes with matplotlib, by its file: no search, and the same letters on every system."""
    from pathlib import Path

    import matplotlib

    return str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSansMono.ttf" if mono else "DejaVuSans.ttf"))


@functools.cache
def _font(size: float, *, mono: bool = False) -> FontProperties:
    from matplotlib.font_manager import FontProperties

    return FontProperties(
        fname=_font_path(mono=mono),
        size=size * _POINTS,
        style="normal",
        variant="normal",
        weight="normal",
        stretch="normal",
        math_fontfamily="dejavusans",
    )


@functools.cache
def glyphs(*, mono: bool = False) -> frozenset[int]:
    """Return the code points that the font has."""
    from matplotlib.font_manager import get_font

    return frozenset(get_font(_font_path(mono=mono)).get_charmap())


def drawable(text: str, *, mono: bool = False) -> str:
    """Return ``text`` on one line, with a square for each character that is invisible or not in the font."""
    known = glyphs(mono=mono)

    def sign(one: str) -> str:
        if one.isspace():
            return " "
        return one if ord(one) in known and unicodedata.category(one)[0] != "C" else _UNKNOWN

    return "".join(map(sign, text))
