"""A picture of a dashboard: its panels where they stand, drawn from what Prometheus answers to their queries."""

import json
import math
import re
from datetime import datetime, timezone

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.colors import LinearSegmentedColormap, PowerNorm  # noqa: E402
from matplotlib.dates import DateFormatter, MinuteLocator, date2num  # noqa: E402
from matplotlib.patches import FancyBboxPatch, Rectangle  # noqa: E402
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, MultipleLocator, NullLocator  # noqa: E402

# Grafana's dark theme.
PAGE, PANEL, EDGE, TEXT, FAINT, GRID = "#111217", "#181b1f", "#2c3235", "#ccccdc", "#8e8e9b", "#2c3235"
COLOURS = {
    "green": "#73bf69",
    "blue": "#5794f2",
    "orange": "#ff9830",
    "red": "#f2495c",
    "yellow": "#fade2a",
    "text": TEXT,
}
PALETTE = ["#73bf69", "#f2cc0c", "#8ab8ff", "#ff780a", "#f2495c", "#5794f2", "#b877d9", "#705da0"]

# Where an axis of times has its ticks, if it is logarithmic: in seconds.
TIMES = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 60, 300, 900, 3600, 4 * 3600, 86400, 4 * 86400, 14 * 86400]

# Of the picture, in pixels. A row of the grid is 30 high, as in Grafana with a little less air.
WIDTH, ROW, COLUMNS, MARGIN, GAP, HEAD = 1600, 30, 24, 8, 8, 52
DPI = 100
POINTS = 180
# What `$__rate_interval` becomes: Grafana takes four scrapes, and more over longer ranges.
RATE_SCRAPES = 8


def draw(file, prometheus, begin, end, output):
    dashboard = json.loads(file.read_text())
    rows = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in dashboard["panels"])
    page = Page(HEAD + rows * ROW + MARGIN)
    variables = dashboard["templating"]["list"]
    variables = [f"{v['label']}: {'All' if v['type'] == 'query' else 'Prometheus'}" for v in variables]
    page.head(dashboard["title"], "     ".join(variables), begin, end)
    queries = Queries(prometheus, begin, end)
    for panel in dashboard["panels"]:
        box = page.box(panel["gridPos"])
        if panel["type"] == "row":
            page.row(panel["title"], box)
            continue
        page.panel(panel["title"], box)
        DRAWINGS[panel["type"]](page, panel, box, queries)
    page.save(output)


class Queries:
    """Asks Prometheus as Grafana does with all variables set to All."""

    def __init__(self, prometheus, begin, end):
        self._prometheus, self.begin, self.end = prometheus, begin, end
        self._step = max((end - begin) / POINTS, prometheus.SCRAPE_EVERY)

    def of(self, panel):
        """The series of all queries: (name, labels, times, values)."""
        series = []
        for target in panel["targets"]:
            expression = target["expr"].replace("$__rate_interval", f"{RATE_SCRAPES * self._prometheus.SCRAPE_EVERY}s")
            expression = re.sub(r"\$(job|instance|queue)\b", ".*", expression)
            if "$" in expression:
                raise RuntimeError(f"a variable that is not known here: {expression}")
            for labels, points in self._prometheus.range(expression, self.begin, self.end, self._step):
                name = re.sub(r"{{(\w+)}}", lambda match: labels.get(match[1], ""), target["legendFormat"])
                series.append((name, labels, *self._whole(points)))
        return series

    def _whole(self, points):
        """With nothing where there is nothing, so that lines break."""
        known = {round((at - self.begin) / self._step): value for at, value in points}
        steps = range(int((self.end - self.begin) / self._step) + 1)
        times = [date2num(datetime.fromtimestamp(self.begin + i * self._step, timezone.utc)) for i in steps]
        return times, [known.get(i, math.nan) for i in steps]


class Page:
    """The picture, measured in pixels from its upper left corner."""

    def __init__(self, height):
        self._height = height
        self._figure = plt.figure(figsize=(WIDTH / DPI, height / DPI), dpi=DPI, facecolor=PAGE)
        self._canvas = self.axes(0, 0, WIDTH, height)
        self._canvas.set(xlim=(0, WIDTH), ylim=(height, 0))
        self._canvas.axis("off")

    def axes(self, x, y, width, height):
        place = (x / WIDTH, 1 - (y + height) / self._height, width / WIDTH, height / self._height)
        return self._figure.add_axes(place, facecolor="none")

    def text(self, x, y, text, size=9, color=TEXT, **how):
        self._canvas.text(x, y, text, fontsize=size, color=color, **how)

    def box(self, grid):
        column = (WIDTH - 2 * MARGIN + GAP) / COLUMNS
        x, y = MARGIN + grid["x"] * column, HEAD + grid["y"] * ROW
        return x, y, grid["w"] * column - GAP, grid["h"] * ROW - GAP

    def head(self, title, variables, begin, end):
        self.text(MARGIN + 8, 26, title, size=15, weight="bold", va="center")
        self.text(MARGIN + 210, 27, variables, size=9, color=FAINT, va="center")
        clock = [datetime.fromtimestamp(at, timezone.utc).strftime("%H:%M") for at in (begin, end)]
        self.text(WIDTH - MARGIN - 8, 27, f"{clock[0]} to {clock[1]} UTC", color=FAINT, va="center", ha="right")

    def row(self, title, box):
        x, y, _, height = box
        self.text(x + 8, y + height / 2 + 4, f"▾  {title}", size=11, weight="bold", va="center")

    def panel(self, title, box):
        x, y, _, _ = box
        self.fill(box, PANEL, edgecolor=EDGE, linewidth=0.8)
        self.text(x + 10, y + 16, title, size=9.5, va="center")

    def fill(self, box, color, **how):
        x, y, width, height = box
        round_box = "round,pad=0,rounding_size=3"
        self._canvas.add_patch(FancyBboxPatch((x, y), width, height, boxstyle=round_box, facecolor=color, **how))

    def swatch(self, x, y, color):
        self._canvas.add_patch(Rectangle((x, y - 1.5), 12, 3, facecolor=color, edgecolor="none"))

    def save(self, output):
        self._figure.savefig(output, dpi=DPI, facecolor=PAGE, pil_kwargs={"optimize": True})
        plt.close(self._figure)
        shrink(output)


def shrink(output):
    """A palette of 256 colours is enough for lines and letters, and a third of the size."""
    from PIL import Image

    with Image.open(output) as picture:
        small = picture.convert("RGB").quantize(256, dither=Image.Dither.NONE)
    small.save(output, optimize=True)


# --- kinds of panels ----------------------------------------------------------------------------------------------


def stat(page, panel, box, queries):
    x, y, width, height = box
    defaults = panel["fieldConfig"]["defaults"]
    (_, _, times, values), *_ = queries.of(panel) or [(None, None, [], [])]
    last = next((value for value in reversed(values) if not math.isnan(value)), None)
    color = TEXT
    for step in defaults["thresholds"]["steps"]:
        if last is not None and (step["value"] is None or last >= step["value"]):
            color = COLOURS[step["color"]]
    if panel["options"]["colorMode"] == "background":
        page.fill(box, color, edgecolor="none", alpha=0.85)
        page.text(x + 10, y + 16, panel["title"], size=9.5, va="center")
        color = "white"
    if panel["options"]["graphMode"] == "area" and last is not None:
        graph = page.axes(x + 1, y + height * 0.62, width - 2, height * 0.38 - 1)
        graph.axis("off")
        graph.plot(times, values, color=color, linewidth=1)
        graph.fill_between(times, values, color=color, alpha=0.2, linewidth=0)
        graph.set(xlim=(times[0], times[-1]), ylim=(0, None))
    text = "no data" if last is None else shown(last, defaults["unit"], defaults.get("decimals"))
    page.text(x + width / 2, y + height * 0.52, text, size=22, color=color, weight="bold", ha="center", va="center")


def timeseries(page, panel, box, queries):
    defaults = panel["fieldConfig"]["defaults"]
    custom, unit = defaults["custom"], defaults["unit"]
    series = queries.of(panel)
    logarithmic = custom["scaleDistribution"]["type"] == "log"
    axes = plot(page, box, queries, unit, legend=True)
    if logarithmic:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(FixedLocator(TIMES))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: shown(value, unit)))
        axes.yaxis.set_minor_locator(NullLocator())
    overrides = panel["fieldConfig"]["overrides"]
    fixed = {o["matcher"]["options"]: o["properties"][0]["value"]["fixedColor"] for o in overrides}
    below, legend = None, []
    for i, (name, _, times, values) in enumerate(sorted(series, key=lambda s: s[0]) if not fixed else series):
        color = COLOURS[fixed[name]] if name in fixed else PALETTE[i % len(PALETTE)]
        if custom["stacking"]["mode"] == "normal":
            values = [0 if math.isnan(value) else value for value in values]
            below = below or [0] * len(values)
            top = [a + b for a, b in zip(below, values, strict=True)]
            if custom["drawStyle"] == "bars":
                axes.bar(times, values, bottom=below, width=times[1] - times[0], color=color, linewidth=0)
            else:
                axes.fill_between(times, below, top, color=color, alpha=custom["fillOpacity"] / 100, linewidth=0)
                axes.plot(times, top, color=color, linewidth=1)
            below = top
        else:
            axes.plot(times, values, color=color, linewidth=1.4)
            if not logarithmic:
                axes.fill_between(times, values, color=color, alpha=custom["fillOpacity"] / 100, linewidth=0)
        legend.append((name, color))
    if not series:
        page.text(box[0] + box[2] / 2, box[1] + box[3] / 2, "nothing", color=FAINT, ha="center")
    if not logarithmic:
        highest = max((value for *_, values in series for value in values if not math.isnan(value)), default=0)
        axes.set_ylim(bottom=defaults["min"], top=axes.get_ylim()[1] if highest > 0 else 1)
        axes.yaxis.set_major_locator(
            MultipleLocator(2 ** math.ceil(math.log2(axes.get_ylim()[1] / 6)))
            if unit == "bytes"
            else MaxNLocator(4, integer=defaults.get("decimals") == 0 or highest == 0)
        )
    if custom["thresholdsStyle"]["mode"] == "dashed":
        low, high = axes.get_ylim()
        for step in defaults["thresholds"]["steps"][1:]:
            if low < step["value"] < high:
                axes.axhline(step["value"], color=COLOURS[step["color"]], linestyle="--", linewidth=1)
    x, y = box[0] + 12, box[1] + box[3] - 13
    for name, color in legend:
        page.swatch(x, y, color)
        page.text(x + 17, y, name, size=8, color=TEXT, va="center")
        x += 17 + 6.2 * len(name) + 14
        if x > box[0] + box[2] - 40:
            break


def heatmap(page, panel, box, queries):
    """Buckets come as they are counted: each with those below it."""
    unit = panel["options"]["yAxis"]["unit"]
    series = sorted(queries.of(panel), key=lambda s: float(s[1]["le"]))
    bounds = [float(labels["le"]) for _, labels, _, _ in series]
    counts, before = [], None
    for _, _, times, values in series:
        values = [0 if math.isnan(value) else value for value in values]
        counts.append([max(0, v - b) for v, b in zip(values, before, strict=True)] if before else values)
        before = values
    # Buckets that nothing ever fell into are left out at both ends.
    used = [i for i, row in enumerate(counts) if max(row) > 0]
    first, last = max(used[0] - 1, 0), min(used[-1] + 1, len(counts) - 1)
    counts, bounds = counts[first : last + 1], bounds[first : last + 1]
    axes = plot(page, box, queries, unit, legend=False)
    blues = LinearSegmentedColormap.from_list("blues", [PANEL, "#1f4e8c", "#5794f2", "#c0d8ff"])
    shading = {"cmap": blues, "norm": PowerNorm(panel["options"]["color"]["exponent"]), "shading": "nearest"}
    axes.pcolormesh(times, range(len(counts)), counts, **shading)
    axes.yaxis.set_major_locator(MaxNLocator(7, integer=True))

    def name(row, _):
        row = round(row)
        return shown(bounds[row], unit) if 0 <= row < len(bounds) else ""

    axes.yaxis.set_major_formatter(FuncFormatter(name))
    axes.grid(visible=False)


DRAWINGS = {"stat": stat, "timeseries": timeseries, "heatmap": heatmap}


def plot(page, box, queries, unit, legend):
    x, y, width, height = box
    axes = page.axes(x + 68, y + 32, width - 84, height - (74 if legend else 56))
    axes.set_xlim(*(date2num(datetime.fromtimestamp(at, timezone.utc)) for at in (queries.begin, queries.end)))
    axes.xaxis.set_major_formatter(DateFormatter("%H:%M"))
    minutes = (queries.end - queries.begin) / 60
    axes.xaxis.set_major_locator(MinuteLocator(interval=max(1, math.ceil(minutes / (width / 70)))))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: shown(value, unit)))
    axes.tick_params(colors=FAINT, labelsize=8, length=0)
    axes.grid(color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return axes


# --- units, as Grafana writes them --------------------------------------------------------------------------------

PER_SECOND = {"eps": "evt/s", "mps": "msg/s", "Bps": "B/s"}


def shown(value, unit, decimals=None):
    if math.isinf(value):
        return "∞"
    if unit == "percentunit":
        return f"{value * 100:.{decimals or 0}f}%"
    if unit == "s":
        return seconds(value)
    if unit == "bytes":
        return scaled(value, 1024, ["B", "KiB", "MiB", "GiB"], decimals)
    return f"{scaled(value, 1000, ['', 'K', 'Mil', 'Bil'], decimals)} {PER_SECOND.get(unit, '')}".strip()


def seconds(value):
    if value == 0:
        return "0 s"
    for size, name in ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"), (1e-3, "ms")):
        if abs(value) >= size * 0.999:
            return f"{plain(value / size)} {name}"
    return f"{plain(value * 1e6)} µs"


def scaled(value, base, names, decimals):
    for name in names:
        if abs(value) < base or name == names[-1]:
            number = plain(value) if decimals is None else f"{value:.{decimals}f}"
            return f"{number} {name}".strip()
        value /= base
    return ""


def plain(value):
    """Three digits, and no zeros behind the point."""
    digits = max(0, 2 - math.floor(math.log10(abs(value)))) if value else 0
    text = f"{value:.{min(digits, 3)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
