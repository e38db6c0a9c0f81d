"""A chart before it is drawn: neutral numbers from which the page draws an interactive figure and matplotlib its static twin.

Both draw the same `Chart`, so the two can never say different things.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

__all__ = ["Chart", "Mark", "Panel", "Series", "Tick", "choose_log"]

ChartKind = Literal["forest", "curve"]
_LOG_FROM_RATIO = 10.0
"""An axis whose largest value is so many times its smallest is logarithmic."""


@dataclass(frozen=True, slots=True)
class Mark:
    """One estimate with its interval.

    Attributes:
        label: The row of a forest it stands in, or the text of its x in a curve.
        x: Its place on the x axis of a curve; None in a forest, where the estimate is the x.
        estimate: Its value.
        low: Lower end of the interval.
        high: Upper end.
        filled: Whether it is the number to read first.
        hover: Further lines for a person who asks.
        is_weak: Whether its adjusted p is too large to count as a finding, whatever its interval says.
    """

    label: str
    x: float | None
    estimate: float
    low: float
    high: float
    filled: bool = True
    hover: str = ""
    is_weak: bool = False

    @property
    def is_told(self) -> bool:
        """Whether it can be told from 0. An interval of no width is none."""
        return self.low != self.high and not self.low <= 0 <= self.high and not self.is_weak


@dataclass(frozen=True, slots=True)
class Series:
    """Marks that share a name, a colour role and a symbol."""

    name: str
    role: str
    symbol: str
    marks: Sequence[Mark]


@dataclass(frozen=True, slots=True)
class Tick:
    """A labelled place on an axis."""

    at: float
    text: str


@dataclass(frozen=True, slots=True)
class Panel:
    """One plot of a chart.

    Attributes:
        title: What it shows.
        series: What is drawn.
        unit: Unit of the estimates, in words.
        is_share: Whether estimates are parts of a whole and are shown in per cent.
    """

    title: str
    series: Sequence[Series]
    unit: str
    is_share: bool = False


@dataclass(frozen=True, slots=True)
class Chart:
    """One figure.

    Attributes:
        name: File name without its ending, and the figure's id; unique in a study.
        label: What it shows, in a few words: for the chooser and for a screen reader.
        caption: What it says.
        kind: ``forest`` has estimates on the x axis and rows of labels; ``curve`` has estimates on the y axis.
        panels: Side by side where there is room.
        rows: Labels of a forest, top to bottom.
        x_name: Name of a curve's x axis.
        ticks: Labelled places on a curve's x axis.
        is_log: Whether a curve's x axis, or a forest's, is logarithmic.
        same_scale: Whether all panels share the axis of the estimates.
        is_static: Whether the chart has a static twin.
        zero: Whether a line at 0 is drawn.
    """

    name: str
    label: str
    caption: str
    kind: ChartKind
    panels: Sequence[Panel]
    rows: Sequence[str] = ()
    x_name: str = ""
    ticks: Sequence[Tick] = field(default_factory=tuple)
    is_log: bool = False
    same_scale: bool = True
    is_static: bool = True
    zero: bool = True

    def series_names(self) -> list[str]:
        """Names for the legend, in order of first appearance."""
        return list(dict.fromkeys(series.name for panel in self.panels for series in panel.series))


def choose_log(values: Sequence[float]) -> bool:
    """Whether an axis through ``values`` should be logarithmic: all positive, and far apart."""
    return bool(values) and min(values) > 0 and max(values) / min(values) >= _LOG_FROM_RATIO
