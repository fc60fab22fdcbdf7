"""results.svg: the ratios with their bounds, and the growth."""

import matplotlib

matplotlib.use("svg")
matplotlib.rcParams["svg.hashsalt"] = "pg_mask"  # the same results make the same file

import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.lines import Line2D  # noqa: E402
from matplotlib.patches import Patch  # noqa: E402
from matplotlib.ticker import FuncFormatter, NullFormatter  # noqa: E402

# Okabe and Ito's: told apart by the colour-blind, and by lightness in grey.
BLUE, VERMILION, BAND = "#0072B2", "#D55E00", "#CFE3F1"

TABLES = {
    "growth_20m": ("monthly partitions", BLUE, "o", "-"),
    "growth_20m_unpartitioned": ("without partitions", VERMILION, "s", "--"),
}


def draw(results, file):
    figures = results["figures"]
    picture, (left, right) = plt.subplots(
        1, 2, figsize=(12, 9), gridspec_kw={"width_ratios": [3, 2]}, layout="constrained"
    )
    ratios(left, {name: figure for name, figure in figures.items() if figure["unit"] == "×"})
    growth(right, {name: figure for name, figure in figures.items() if name in TABLES})
    host = results["machine"]
    title = f"{host['cpu']}, {host['cores']} cores, PostgreSQL {host['postgresql'].split()[0]}, {host['date'][:10]}"
    picture.suptitle(title + (" (quick run: means nothing)" if results["quick"] else ""), fontsize=10)
    picture.savefig(file, metadata={"Date": None})
    plt.close(picture)


def ratios(axes, figures):
    """A row for each ratio: median and spread, on a band that is where its bound lets it be."""
    every = [value for figure in figures.values() for value in (*figure["spread"], bound_of(figure)) if value]
    low, high = min([0.25, *every]) / 1.4, max([4, *every]) * 1.4
    axes.set(xscale="log", xlim=(low, high), ylim=(len(figures) - 0.5, -0.5))
    for row, figure in enumerate(figures.values()):
        if bound := bound_of(figure):
            begin, end = (bound, high) if figure["bound"].startswith("≥") else (low, bound)
            axes.barh(row, end - begin, left=begin, height=0.7, color=BAND, zorder=1)
            axes.plot([bound, bound], [row - 0.35, row + 0.35], color="black", linewidth=1.5, zorder=2)
        missed = figure["ok"] is False
        axes.plot(figure["spread"], [row, row], color=VERMILION if missed else BLUE, linewidth=2, zorder=3)
        axes.plot(
            figure["value"], row, "X" if missed else "o", markersize=8, color=VERMILION if missed else BLUE, zorder=4
        )
        # On the side where the line of the bound is not.
        before = not missed and (figure["bound"] or "").startswith("≤")
        axes.annotate(
            f"{figure['value']:.2f}",
            (figure["spread"][0 if before else 1], row),
            xytext=(-7 if before else 7, 0),
            textcoords="offset points",
            ha="right" if before else "left",
            va="center",
            fontsize=9,
        )
    axes.set_yticks(
        range(len(figures)),
        [f"{name}\n{figure['bound'] or 'no bound'}" for name, figure in figures.items()],
        fontsize=8,
    )
    axes.set(xlabel="ratio, logarithmic", title="Ratios and their bounds")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    ticks = [tick for tick in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200) if low <= tick <= high]
    axes.set_xticks(ticks)
    axes.grid(axis="x", color="#DDDDDD", zorder=0)
    axes.set_axisbelow(True)
    axes.legend(
        handles=[
            Patch(color=BAND, label="within the bound"),
            Line2D([], [], color=BLUE, marker="o", label="median and spread"),
            Line2D([], [], color=VERMILION, marker="X", label="bound missed"),
        ],
        loc="upper center",
        bbox_to_anchor=(0.5, -0.12),
        ncols=3,
        fontsize=8,
        frameon=False,
    )


def bound_of(figure):
    return float(figure["bound"].split()[1]) if figure["bound"] else None


def growth(axes, figures):
    for name, figure in figures.items():
        label, colour, marker, style = TABLES[name]
        points = figure["sizes"]
        rows = [point["rows"] for point in points]
        cost = [point["microseconds_per_event"] for point in points]
        axes.plot(rows, cost, color=colour, marker=marker, linestyle=style, label=f"{label}: × {figure['value']:.2f}")
    axes.set(
        xscale="log",
        xlabel="rows in the table, logarithmic",
        ylabel="time of an event in a batch, µs",
        title="Growth",
    )
    axes.set_ylim(bottom=0)
    axes.margins(x=0.15)
    if figures:
        rows = [point["rows"] for point in next(iter(figures.values()))["sizes"]]
        axes.set_xticks(rows, [in_words(count) for count in rows])
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), fontsize=8, frameon=False)
    axes.grid(axis="y", color="#DDDDDD")
    axes.set_axisbelow(True)


def in_words(count):
    return f"{count / 1e6:g} million" if count >= 1_000_000 else f"{count:,}"
