"""What an event costs in a large table and in a small one, with partitions and without."""

import contextlib
import datetime
import statistics
from concurrent.futures import ThreadPoolExecutor

import data
from cluster import REPOSITORY
from figures import measured
from ingest import check_counts
from sampling import progress, rounds
from storage import timed_and_wal

MONTHS = 13  # with the present one, so that it has less than a twelfth of the rows


def growth(cluster, sizes):
    with contextlib.ExitStack() as stack:
        tables = {
            (partitioned, rows): stack.enter_context(logins(cluster, partitioned, rows, rows == sizes.large))
            for partitioned in (True, False)
            for rows in (sizes.small, sizes.large)
        }
        # Two at a time, one for each core of a small machine.
        with ThreadPoolExecutor(2) as pool:
            try:
                list(pool.map(Logins.fill, tables.values()))
            except BaseException:
                # Or else the end of the run would wait for minutes.
                pool.shutdown(wait=False, cancel_futures=True)
                for table in tables.values():
                    table.session.cancel()
                raise
        files = write_batches(cluster, sizes)
        return {
            "growth_20m": compare(tables[True, sizes.small], tables[True, sizes.large], files, sizes),
            "growth_20m_unpartitioned": compare(tables[False, sizes.small], tables[False, sizes.large], files, sizes),
        }


def write_batches(cluster, sizes):
    """A file of new events for each round."""
    with cluster.connect() as session:
        query = data.random_events(sizes.batch, data.today(session))
        return [
            data.write(
                session,
                cluster.files / f"batch{number}.bin",
                f"SELECT message_id, sent_at, body FROM ({query}) AS e",
            )
            for number in range(sizes.rounds + 1)
        ]


def compare(small, large, files, sizes):
    """The figure of a small and a large table of the same shape."""
    # Before the batches, which bring other rows than the fill does.
    points = [{"rows": table.rows} | table.bytes_per_event() for table in (small, large)]
    taken = []
    sides = {
        "small": lambda number: small.batch(files[number], sizes.batch),
        "large": lambda number: large.batch(files[number], sizes.batch),
    }
    for costs in rounds(sizes.rounds, sides):
        taken.append(costs | {"ratio": costs["large"]["seconds"] / costs["small"]["seconds"]})
        progress(
            f"{large}: {costs['small']['seconds']:.2f} s, and {costs['large']['seconds']:.2f} s in the large one,"
            f" {taken[-1]['ratio']:.2f}"
        )
    for point, name in zip(points, sides, strict=True):
        seconds = statistics.median(one[name]["seconds"] for one in taken)
        wal_bytes = statistics.median(one[name]["wal_bytes"] for one in taken)
        point["microseconds_per_event"] = seconds / sizes.batch * 1e6
        point["wal_bytes_per_event"] = wal_bytes / sizes.batch
    return measured(taken, "ratio", batch=sizes.batch, sizes=points)


@contextlib.contextmanager
def logins(cluster, partitioned, rows, is_large):
    schema = f"{'partitioned' if partitioned else 'whole'}_{rows}"
    shape = partitioned_shape() if partitioned else "sql/02_tables.sql"
    with cluster.logins(schema, shape) as session:
        table = Logins(session, partitioned, rows, is_large)
        if partitioned:
            table.make_partitions()
        yield table


def partitioned_shape():
    """The tables of the partitioned variant, without pg_partman: the partitions are made here."""
    file = "sql/variants/partitioned.sql"
    tables, mark, _ = (REPOSITORY / file).read_text().partition("-- From here on: pg_partman")
    if not mark:
        raise RuntimeError(f"{file} has no line any more that says where the tables end")
    return tables


class Logins:
    """A filled user_logins, and batches into it."""

    def __init__(self, session, partitioned, rows, is_large):
        self.session = session
        self.partitioned = partitioned
        self.rows = rows
        self.is_large = is_large
        self.today = data.today(session)
        this_month = self.today.replace(day=1)
        self.months = [plus_months(this_month, -back) for back in reversed(range(MONTHS))]

    def __str__(self):
        return "partitioned" if self.partitioned else "unpartitioned"

    def make_partitions(self):
        for month in [*self.months, plus_months(self.months[-1], 1), plus_months(self.months[-1], 2)]:
            self.session.execute(
                f"CREATE TABLE {partition(month)} PARTITION OF user_logins"
                f" FOR VALUES FROM ('{month}') TO ('{plus_months(month, 1)}')"
            )
        self.session.execute("CREATE TABLE user_logins_default PARTITION OF user_logins DEFAULT")

    def fill(self):
        # Through the index, row by row, as events come: an index made afterwards would be packed, and soon after all of
        # its pages would split at about the same time.
        self.session.execute("SELECT setseed(0.5)")
        for month in self.months:
            self._fill_month(month)
        self.session.execute("ANALYZE user_logins")
        progress(f"{self}: filled with {self.rows:,} rows")

    def _fill_month(self, month):
        """A month's share of the rows, the dates in order."""
        last = min(plus_months(month, 1) - datetime.timedelta(days=1), self.today)
        days = (last - month).days + 1
        rows = self.rows // MONTHS
        self.session.execute(
            f"""INSERT INTO user_logins
                SELECT gen_random_uuid(), 'android', mask_pii({data.RANDOM_IP}), mask_pii({data.RANDOM_DEVICE}),
                       'DE', 230, date '{month}' + ((n - 1)::bigint * {days} / {rows})::integer, gen_random_uuid()
                FROM generate_series(1, {rows}) AS n"""
        )

    def batch(self, file, count):
        """Time and WAL of a batch of new events, the first after a checkpoint."""
        self._take_back()
        self.session.execute("CHECKPOINT")
        seconds, wal_bytes = timed_and_wal(self.session, data.copy("login_inbox", file))
        check_counts(self.session, count)
        return {"seconds": seconds, "wal_bytes": wal_bytes}

    def _take_back(self):
        """Makes the table what it was before the last batch, or else the small one would not stay small.

        Where there are no partitions the large one keeps its batches, which add a few per cent to it.
        """
        if self.partitioned:
            self.session.execute(f"TRUNCATE {partition(self.months[-1])}")
            self._fill_month(self.months[-1])
        elif not self.is_large:
            self.session.execute("TRUNCATE user_logins")
            for month in self.months:
                self._fill_month(month)

    def bytes_per_event(self):
        heap, index, rows = self.session.execute(
            """SELECT sum(pg_relation_size(relid)), sum(pg_indexes_size(relid)), (SELECT count(*) FROM user_logins)
               FROM (SELECT relid FROM pg_partition_tree('user_logins') UNION SELECT 'user_logins') AS tables"""
        ).fetchone()
        return {"heap_bytes_per_event": float(heap / rows), "index_bytes_per_event": float(index / rows)}


def partition(month):
    return f"user_logins_{month:%Y_%m}"


def plus_months(month, count):
    """The first day of another month."""
    number = month.year * 12 + month.month - 1 + count
    return datetime.date(number // 12, number % 12 + 1, 1)
