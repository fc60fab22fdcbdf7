"""The figures: their names, what they mean, and what is promised of them."""

import statistics
from typing import NamedTuple


class Figure(NamedTuple):
    unit: str
    bound: str | None
    what: str  # a sentence, in which {sizes.…} stands for a size of the run


FIGURES = {
    "ingest_vs_copy_indexed": Figure(
        "×",
        "≥ 0.80",
        "Rate of COPY into the inbox over plain COPY of the same rows masked beforehand, into a table with the unique"
        " index on message_id; {sizes.indexed:,} events.",
    ),
    "ingest_vs_copy_plain": Figure(
        "×",
        "≥ 0.60",
        "The same into a table without any index (and so without message_id); {sizes.plain:,} events.",
    ),
    "ingest_vs_sql": Figure(
        "×",
        "≥ 3",
        "Rate of COPY into the inbox over one INSERT … SELECT that takes the events from a table and parses and masks"
        " them with ->> and encode(), with the unique index; {sizes.indexed:,} events.",
    ),
    "ingest_insert_vs_sql": Figure(
        "×",
        None,
        "The same with the events put into the inbox by INSERT … SELECT from that table, instead of by COPY.",
    ),
    "siv_vs_base64": Figure(
        "×",
        "≥ 0.80",
        "Rate of COPY into the inbox with pg_mask.scheme = 'aes-siv' over the same with 'base64', with the unique index"
        " on message_id; {sizes.indexed:,} events.",
    ),
    "one_bad_row": Figure(
        "×",
        "≤ 3",
        "Time of {sizes.chunk:,} events of which Postgres refuses one, the last that is written, over the time of"
        " {sizes.chunk:,} that it all takes.",
    ),
    "all_bad_rows": Figure(
        "×",
        "≤ 5",
        "Time of {sizes.chunk:,} events of which Postgres refuses each by a CHECK, over the time of {sizes.chunk:,} that it"
        " all takes.",
    ),
    "growth_20m": Figure(
        "×",
        "≤ 1.2",
        "Time of a batch of {sizes.batch:,} events into {sizes.large:,} rows over its time into {sizes.small:,}, in"
        " monthly partitions with a unique index on (create_date, message_id); each batch is the first after a"
        " checkpoint.",
    ),
    "growth_20m_unpartitioned": Figure(
        "×",
        None,
        "The same without partitions, with a unique index on message_id.",
    ),
    "mask_vs_encode": Figure(
        "×",
        "≤ 0.6",
        "Time of mask_pii(v) over encode(convert_to(v, 'utf8'), 'base64'), both less the time of the query without"
        " them; {sizes.values:,} IPv4 addresses.",
    ),
    "unmask_vs_decode": Figure(
        "×",
        "≤ 0.6",
        "Time of unmask_pii(v) over convert_from(decode(v, 'base64'), 'utf8') of the masks of the same, likewise.",
    ),
    "siv_vs_pgcrypto": Figure(
        "×",
        "≤ 0.30",
        "Time of mask_pii(v) with pg_mask.scheme = 'aes-siv' over encrypt(convert_to(v, 'utf8'), key, 'aes') of"
        " pgcrypto with a key of 32 bytes, both less the time of the query without them; {sizes.values:,} IPv4"
        " addresses.",
    ),
    "remask_vs_update": Figure(
        "×",
        "≥ 0.5",
        "Speed of remask_column(), which moves masked_ip from base64 to aes-siv and commits batch by batch, over one"
        " UPDATE that appends an empty text to each masked_ip; {sizes.remasked:,} rows with the unique index on"
        " message_id, just loaded, vacuumed and written by a checkpoint.",
    ),
    "rekey_vs_update": Figure(
        "×",
        None,
        "The same from one key to another, where the rows of both sides are masked by aes-siv.",
    ),
    "backend_memory_mb": Figure(
        "MB",
        "≤ 48",
        "Most memory of its own (RssAnon, so without shared buffers) that a backend takes beyond what it had after a"
        " first small insert, while {sizes.stream:,} events come in one COPY.",
    ),
    "parallel_mask_speedup": Figure(
        "×",
        None,
        "Serial over parallel time (2 workers and the leader) of counting distinct masks in {sizes.scanned:,} rows, by"
        " SELECT count(*) FROM (SELECT mask_pii(ip) … GROUP BY 1): count(DISTINCT …), which means the same, is never"
        " parallel.",
    ),
    "loader_vs_null_rate": Figure(
        "×",
        "≥ 0.85",
        "Messages a second of the loader over those of the null consumer, which is the same program with the same"
        " pollers (16), receives and deletes by the same calls and stores nothing; {sizes.messages:,} messages of 220"
        " bytes, on a local SQS server.",
    ),
    "loader_vs_null_cpu": Figure(
        "×",
        "≤ 1.3",
        "Processor time a message of the loader over that of the null consumer, in the same runs.",
    ),
    "rate_at_20ms": Figure(
        "×",
        "≥ 0.5",
        "Messages a second of the loader with 64 pollers, where each SQS call takes 20 ms longer, over the 32,000 that"
        " so many pollers would receive if nothing else took time; {sizes.messages:,} messages.",
    ),
    "loader_vs_null_rate_20ms": Figure(
        "×",
        None,
        "The loader's rate over the null consumer's there, where neither has to wait for the processor. A worker of the null"
        " consumer deletes before it receives again.",
    ),
    "ramp_seconds": Figure(
        "s",
        "≤ 5",
        "Time from the first receive call until messages are deleted at nine tenths of the full rate, of a loader that"
        " begins with one poller and may have 64, where each SQS call takes 20 ms longer; {sizes.ramped:,} messages"
        " wait.",
    ),
    "loader_vs_naive_python": Figure(
        "×",
        "≥ 50",
        "Messages a second of the loader over those of a Python consumer as most people write it, with boto3 and"
        " psycopg, one message at a time and a commit each (dev/bench/peers/naive.py).",
    ),
    "loader_vs_best_python": Figure(
        "×",
        "≥ 3",
        "The same over the quickest Python consumer that boto3 and psycopg make: ten messages a call, threads and"
        " processes, COPY into the inbox, deletes in batches (dev/bench/peers/best.py).",
    ),
    "loader_rss_mb": Figure(
        "MB",
        "≤ 64",
        "Most resident memory of the loader with 64 pollers, while {sizes.waiting:,} messages of 1 KB wait; the larger"
        " of a run without delay and one with 20 ms more for each SQS call.",
    ),
    "loader_start_ms": Figure(
        "ms",
        "≤ 50",
        "Time from starting the process until the service manager is told that the loader is ready (READY=1), by when"
        " it has logged in, looked at the inbox and asked for the queue, all on this machine.",
    ),
    "loader_vs_null_rate_ministack": Figure(
        "×",
        None,
        "loader_vs_null_rate on the SQS server of the demo, which is written in Python; one sample of"
        " {sizes.ministack:,} messages.",
    ),
    "wal_bytes_per_event": Figure(
        "bytes",
        None,
        "WAL that an event writes through the inbox, with the unique index, into an empty table; {sizes.indexed:,}"
        " events, wal_compression off.",
    ),
    "heap_bytes_per_event": Figure(
        "bytes",
        None,
        "Space of an event in the table itself, without its index.",
    ),
    "wal_bytes_per_event_lz4": Figure(
        "bytes",
        None,
        "WAL that an event writes with wal_compression = lz4, of {sizes.indexed:,} that come right after a checkpoint"
        " into a table that has as many: so each index page is written to the WAL whole, compressed, when it first"
        " changes.",
    ),
}


def holds(bound, value):
    """Whether a value keeps a bound such as "≥ 0.80"."""
    sign, limit = bound.split()
    return value >= float(limit) if sign == "≥" else value <= float(limit)


def measured(samples, key, **more):
    """A figure that is the median of `key` over its samples, each a dict of raw numbers."""
    values = [sample[key] for sample in samples]
    return {
        "value": statistics.median(values),
        "spread": [min(values), max(values)],
        "samples": samples,
        **more,
    }
