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
