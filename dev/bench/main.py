"""Runs the figures and writes the results: what dev/bench/run goes on to once psycopg and matplotlib are there."""

import argparse
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import NamedTuple

import psycopg

import cluster
import growth
import ingest
import loader
import masks
import memory
import plot
import remask
import report
import storage
from figures import FIGURES
from sampling import progress


class Sizes(NamedTuple):
    quick: bool
    rounds: int  # samples of each side, one for warming up not counted
    indexed: int  # events a sample, into a table with an index
    plain: int  # … without one
    chunk: int  # events of which one is bad
    small: int  # rows in the small table of the growth …
    large: int  # … and in the large one
    batch: int  # events a sample there
    values: int  # values masked in a query
    remasked: int  # rows whose masks are moved to another scheme or key
    stream: int  # events of one COPY, for the memory
    scanned: int  # rows of the parallel query
    messages: int  # that the loader moves a sample; as many whole batches, or it would wait for more at the end
    ramped: int  # … while its pollers become more
    waiting: int  # … of 1 KB, while its memory is looked at
    naive: int  # … that the naive consumer moves
    best: int  # … and the best one in Python
    ministack: int  # messages on the SQS server of the demo


FULL = Sizes(
    quick=False,
    rounds=7,
    indexed=300_000,
    plain=600_000,
    chunk=5_000,
    small=1_000_000,
    large=20_000_000,
    batch=200_000,
    values=3_000_000,
    remasked=1_000_000,
    stream=2_000_000,
    scanned=5_000_000,
    messages=200_000,
    ramped=150_000,
    waiting=100_000,
    naive=1_000,
    best=50_000,
    ministack=6_000,
)
QUICK = Sizes(
    quick=True,
    rounds=2,
    indexed=2_000,
    plain=3_000,
    chunk=200,
    small=1_300,
    large=26_000,
    batch=500,
    values=20_000,
    remasked=40_000,  # so that there are two batches
    stream=20_000,
    scanned=20_000,
    messages=5_000,
    ramped=20_000,
    waiting=5_000,
    naive=50,
    best=2_000,
    ministack=300,
)
DISK_GB = 25  # for the full sizes of the growth

# What is measured together, and the figures that it gives.
MEASUREMENTS = {
    ingest.vs_copy_indexed: ["ingest_vs_copy_indexed"],
    ingest.vs_copy_plain: ["ingest_vs_copy_plain"],
    ingest.vs_sql: ["ingest_vs_sql", "ingest_insert_vs_sql"],
    ingest.siv_vs_base64: ["siv_vs_base64"],
    ingest.bad_rows: ["one_bad_row", "all_bad_rows"],
    masks.vs_builtin: ["mask_vs_encode", "unmask_vs_decode"],
    masks.siv_vs_pgcrypto: ["siv_vs_pgcrypto"],
    remask.vs_update: ["remask_vs_update", "rekey_vs_update"],
    masks.parallel: ["parallel_mask_speedup"],
    memory.backend_memory: ["backend_memory_mb"],
    storage.bytes_per_event: ["wal_bytes_per_event", "heap_bytes_per_event"],
    storage.wal_compressed: ["wal_bytes_per_event_lz4"],
    loader.vs_null: ["loader_vs_null_rate", "loader_vs_null_cpu"],
    loader.at_20ms: ["rate_at_20ms", "loader_vs_null_rate_20ms"],
    loader.ramp_up: ["ramp_seconds"],
    loader.vs_python: ["loader_vs_naive_python", "loader_vs_best_python"],
    loader.memory: ["loader_rss_mb"],
    loader.start: ["loader_start_ms"],
    loader.vs_null_ministack: ["loader_vs_null_rate_ministack"],
    growth.growth: ["growth_20m", "growth_20m_unpartitioned"],
}


class Failure(Exception):
    """Something that the user can read and act upon."""


def main():
    options = parse()
    if options.list:
        for name, figure in FIGURES.items():
            print(f"{name:29} {figure.bound or '':8} {figure.what.format(sizes=FULL)}")
        return
    # So that the servers are stopped then too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    # The private installation must be readable to the server's user, whatever the caller's umask.
    os.umask(0o022)
    try:
        measure(options)
    except (Failure, cluster.servers.Failure, RuntimeError) as failure:
        sys.exit(f"bench: {failure}")
    except psycopg.Error as error:
        sys.exit(f"bench: PostgreSQL says: {error}")
    except KeyboardInterrupt:
        sys.exit("bench: interrupted; the figures that were finished are kept")


def parse():
    parser = argparse.ArgumentParser(
        prog="dev/bench/run",
        description="Measures what the project promises of its speed and size, on private servers of its own."
        f" Takes about 30 minutes on two cores, and up to {DISK_GB} GB of disk in /var/tmp meanwhile.",
    )
    parser.add_argument("--only", metavar="NAME[,NAME]", help="measure these alone, and keep the others as they are")
    parser.add_argument("--output", type=Path, metavar="DIR", help="where the results go, dev/bench unless told")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, which show that it works; needs --output")
    parser.add_argument("--list", action="store_true", help="print the figures and their bounds")
    options = parser.parse_args()
    options.only = options.only.split(",") if options.only else list(FIGURES)
    if unknown := [name for name in options.only if name not in FIGURES]:
        parser.error(f"there is no figure {unknown[0]!r}: see --list")
    here = Path(__file__).resolve().parent
    if options.quick and (options.output is None or options.output.resolve() == here):
        parser.error("a quick run needs --output DIR: its figures must not replace those in dev/bench")
    options.output = options.output or here
    return options


def measure(options):
    sizes = QUICK if options.quick else FULL
    wanted = set(options.only)
    needed = [run for run, names in MEASUREMENTS.items() if wanted.intersection(names)]
    if growth.growth in needed and not options.quick:
        free = shutil.disk_usage("/var/tmp").free / 1e9
        if free < DISK_GB:
            raise Failure(f"the growth figures need {DISK_GB} GB of disk, and /var/tmp has {free:.0f}")
    options.output.mkdir(parents=True, exist_ok=True)

    figures = {}
    with cluster.running(options.quick) as running:
        machine = report.machine(running)
        if wanted != set(FIGURES) and (old := report.read(options.output)):
            check_same_kind(old, machine, options.quick)
            figures = old["figures"]
        for run in needed:
            progress(", ".join(MEASUREMENTS[run]))
            for name, result in run(running, sizes).items():
                if name in wanted:
                    figures[name] = report.entry(name, result, sizes)
            ordered = {name: figures[name] for name in FIGURES if name in figures}
            results = {"machine": machine, "quick": options.quick, "figures": ordered}
            # After each, so that a failure later on does not cost it.
            report.write(options.output, results)
    plot.draw(results, options.output / "results.svg")
    say_what_came_out(results, options.output)


def check_same_kind(old, machine, quick):
    """Figures of two machines, or of two sizes, make no table together."""
    for key in ("cpu", "cores", "postgresql"):
        if old["machine"][key] != machine[key]:
            raise Failure(
                f"the other figures are of another machine ({key} {old['machine'][key]}, here {machine[key]}):"
                " measure all, or give another --output"
            )
    if old["quick"] != quick:
        raise Failure("the other figures are of other sizes: give another --output")


def say_what_came_out(results, output):
    for name, figure in results["figures"].items():
        low, high = (report.number(value) for value in figure["spread"])
        met = {True: "met", False: "MISSED", None: ""}[figure["ok"]]
        print(
            f"{name:29} {report.number(figure['value']):>7} {figure['unit']:5} ({low} to {high})"
            f"  {figure['bound'] or '':8} {met}".rstrip()
        )
    print(f"results.json, results.md and results.svg are in {output}")
    missed = [name for name, figure in results["figures"].items() if figure["ok"] is False]
    if results["quick"]:
        print("bench: a quick run says nothing about bounds")
    elif missed:
        print(f"bench: bounds MISSED: {', '.join(missed)}")
    else:
        print("bench: every bound is met")


if __name__ == "__main__":
    main()
