"""results.json, and the table made from it."""

import datetime
import json
import os
import platform

from figures import FIGURES, holds


def machine(cluster):
    with cluster.connect() as session:
        version = session.execute("SHOW server_version").fetchone()[0]
        extension = session.execute("SELECT extversion FROM pg_extension WHERE extname = 'pg_mask'").fetchone()[0]
        settings = dict(
            session.execute(
                """SELECT name, current_setting(name) FROM pg_settings WHERE name IN
                   ('shared_buffers', 'max_wal_size', 'checkpoint_timeout', 'synchronous_commit', 'fsync',
                    'full_page_writes', 'wal_compression', 'autovacuum', 'jit', 'shared_preload_libraries')
                   ORDER BY name"""
            ).fetchall()
        )
    return {
        "cpu": first_value("/proc/cpuinfo", "model name") or platform.machine(),
        "cores": os.cpu_count(),
        "memory_gb": round(int(first_value("/proc/meminfo", "MemTotal").split()[0]) * 1024 / 1e9, 1),
        "kernel": f"{platform.system()} {platform.release()}",
        "postgresql": version,
        "pg_mask": extension,
        "settings": settings,
        "date": now(),
    }


def first_value(file, key):
    with open(file, encoding="utf-8") as lines:
        for line in lines:
            name, _, value = line.partition(":")
            if name.strip() == key:
                return value.strip()
    return None


def now():
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def entry(name, result, sizes):
    """A figure as it stands in results.json."""
    figure = FIGURES[name]
    # A quick run shows that all can be measured, and nothing else.
    ok = None if figure.bound is None or sizes.quick else holds(figure.bound, result["value"])
    return {
        "value": result.pop("value"),
        "unit": figure.unit,
        "bound": figure.bound,
        "ok": ok,
        "what": figure.what.format(sizes=sizes),
        "measured": now(),
    } | result


def read(folder):
    file = folder / "results.json"
    return json.loads(file.read_text()) if file.exists() else None


def write(folder, results):
    # Whole or not at all: an interrupted run must not cost the figures of the last one.
    fresh = folder / "results.json.new"
    fresh.write_text(json.dumps(rounded(results), indent=1, ensure_ascii=False) + "\n")
    fresh.replace(folder / "results.json")
    (folder / "results.md").write_text(table(results))


def rounded(value):
    """Numbers with the digits that mean something."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {key: rounded(one) for key, one in value.items()}
    if isinstance(value, list):
        return [rounded(one) for one in value]
    return value


def table(results):
    host = results["machine"]
    lines = [
        "# Benchmark",
        "",
        "Made by `dev/bench/run` from results.json, which has every sample too.",
        "",
        f"{host['cpu']}, {host['cores']} cores, {host['memory_gb']} GB; PostgreSQL {host['postgresql']},"
        f" {host['kernel']}; {host['date']}",
        "",
    ]
    if results["quick"]:
        lines += ["**A quick run: its sizes are tiny, and its figures mean nothing.**", ""]
    lines += ["| figure | value | spread | bound | met | what |", "|---|---|---|---|---|---|"]
    for name, figure in results["figures"].items():
        low, high = figure["spread"]
        met = {True: "yes", False: "**no**", None: ""}[figure["ok"]]
        lines.append(
            f"| {name} | {number(figure['value'])} {figure['unit']} | {number(low)} to {number(high)} |"
            f" {figure['bound'] or ''} | {met} | {figure['what']}{compared(figure)} |"
        )
    grown = [(name, figures) for name, figures in results["figures"].items() if "sizes" in figures]
    if grown:
        lines += [
            "",
            "| table | rows | µs an event | WAL bytes | heap bytes | index bytes |",
            "|---|---|---|---|---|---|",
        ]
        for name, figure in grown:
            for point in figure["sizes"]:
                lines.append(
                    f"| {'without partitions' if name.endswith('unpartitioned') else 'monthly partitions'} |"
                    f" {point['rows']:,} | {number(point['microseconds_per_event'])} |"
                    f" {number(point['wal_bytes_per_event'])} | {number(point['heap_bytes_per_event'])} |"
                    f" {number(point['index_bytes_per_event'])} |"
                )
        lines += [
            "",
            "Bytes are those of an event: of the WAL that a batch wrote, of the table as it was filled.",
        ]
    for name, figure in results["figures"].items():
        if "plan" in figure:
            lines += ["", f"The plan of {name}:", "", *(f"    {line}" for line in figure["plan"])]
    return "\n".join(lines) + "\n"


def number(value):
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def compared(figure):
    """What there is besides to compare with."""
    others = {
        "plain_copy": "plain COPY of masked rows",
        "uncompressed": "without compression",
        "against_json_to_record": "over SQL that parses each event once, by json_to_record()",
    }
    found = [f"{name}: {number(figure[key])}" for key, name in others.items() if key in figure]
    return f" To compare, {', '.join(found)}." if found else ""
