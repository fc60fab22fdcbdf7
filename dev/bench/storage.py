"""What an event takes on disk: in the WAL and in the table."""

import statistics

import data
from figures import measured
from ingest import check_all_stored, check_counts, empty
from sampling import progress, timed

SAMPLES = 5


def bytes_per_event(cluster, sizes):
    """WAL and heap of events in an empty table, through the inbox and, to compare, by COPY of masked rows."""
    count = sizes.indexed
    with cluster.logins("indexed") as session:
        files = write_files(cluster, session, count)

        def sample(target, file):
            empty(session)
            wal = wal_of(session, data.copy(target, file)) / count
            if target == "login_inbox":
                check_all_stored(session, count)
            heap = session.execute("SELECT pg_relation_size('user_logins')").fetchone()[0] / count
            return {"wal": wal, "heap": heap}

        inbox = [sample("login_inbox", files["events"]) for _ in range(SAMPLES)]
        plain = [sample("user_logins", files["masked"]) for _ in range(SAMPLES)]
    progress(f"inbox {inbox[-1]}, plain COPY {plain[-1]}")
    return {
        f"{name}_bytes_per_event": measured(inbox, name, plain_copy=statistics.median(one[name] for one in plain))
        for name in ("wal", "heap")
    }


def wal_compressed(cluster, sizes):
    """WAL of events that come after a checkpoint into a table that has some, with and without compression."""
    count = sizes.indexed
    with cluster.logins("indexed") as session:
        files = write_files(cluster, session, count)
        later = write_files(cluster, session, count, "later_")

        def sample(compression, target, before, file):
            empty(session)
            session.execute(data.copy("user_logins", before))
            # From here on the first change of a page writes all of it to the WAL.
            session.execute("CHECKPOINT")
            session.execute(f"SET wal_compression = {compression}")
            wal = wal_of(session, data.copy(target, file)) / count
            session.execute("RESET wal_compression")
            if target == "login_inbox":
                check_counts(session, count)
            return {"wal": wal}

        def samples(compression, target, kind):
            return [sample(compression, target, files["masked"], later[kind]) for _ in range(SAMPLES)]

        lz4 = samples("lz4", "login_inbox", "events")
        off = samples("off", "login_inbox", "events")
        plain = samples("lz4", "user_logins", "masked")
    progress(f"lz4 {lz4[-1]}, without {off[-1]}, plain COPY with lz4 {plain[-1]}")
    return {
        "wal_bytes_per_event_lz4": measured(
            lz4,
            "wal",
            uncompressed=statistics.median(one["wal"] for one in off),
            plain_copy=statistics.median(one["wal"] for one in plain),
        )
    }


def write_files(cluster, session, count, prefix=""):
    """Files of the same new events, raw and masked."""
    data.make_table(cluster, count)
    raw = "SELECT message_id, sent_at, body FROM raw ORDER BY n"
    masked = f"SELECT {data.MASKED}, message_id FROM raw ORDER BY n"
    return {
        "events": data.write(session, cluster.files / f"{prefix}events.bin", raw),
        "masked": data.write(session, cluster.files / f"{prefix}masked.bin", masked),
    }


def timed_and_wal(session, statement):
    """The seconds that a statement takes and the bytes of WAL that it writes, its commit included."""
    position = "SELECT pg_current_wal_insert_lsn()"
    begin = session.execute(position).fetchone()[0]
    seconds = timed(session, statement)
    end = session.execute(position).fetchone()[0]
    return seconds, int(session.execute("SELECT pg_wal_lsn_diff(%s, %s)", [end, begin]).fetchone()[0])


def wal_of(session, statement):
    return timed_and_wal(session, statement)[1]
