"""Time of the masking functions: against PostgreSQL's own, against pgcrypto's, and in parallel."""

import os

import data
from figures import measured
from sampling import progress, rounds, timed


def vs_builtin(cluster, sizes):
    with cluster.connect() as session:
        make_addresses(session, sizes)
        session.execute("CREATE UNLOGGED TABLE masks AS SELECT mask_pii(v) AS v FROM addresses")
        session.execute("VACUUM ANALYZE masks")
        wrong = session.execute(
            "SELECT count(*) FROM addresses WHERE mask_pii(v) <> encode(convert_to(v, 'utf8'), 'base64')"
        ).fetchone()[0]
        if wrong:
            raise RuntimeError(f"{wrong} masks are not what encode() gives")
        figures = {
            "mask_vs_encode": net_ratio(
                session, sizes, "addresses", "mask_pii(v)", "encode(convert_to(v, 'utf8'), 'base64')"
            ),
            "unmask_vs_decode": net_ratio(
                session, sizes, "masks", "unmask_pii(v)", "convert_from(decode(v, 'base64'), 'utf8')"
            ),
        }
        session.execute("DROP TABLE addresses, masks")
    return figures


def siv_vs_pgcrypto(cluster, sizes):
    with cluster.connect() as session:
        make_addresses(session, sizes)
        session.execute("CREATE EXTENSION IF NOT EXISTS pgcrypto")
        session.execute("SET pg_mask.scheme = 'aes-siv'")
        wrong = session.execute(
            "SELECT count(*) FROM addresses"
            " WHERE mask_key(mask_pii(v)) IS DISTINCT FROM %s OR unmask_pii(mask_pii(v)) <> v",
            [cluster.ring.primary],
        ).fetchone()[0]
        if wrong:
            raise RuntimeError(f"{wrong} masks are not under the primary key, or not of their values")
        key = os.urandom(32).hex()
        builtin = rf"encrypt(convert_to(v, 'utf8'), '\x{key}'::bytea, 'aes')"
        figures = {"siv_vs_pgcrypto": net_ratio(session, sizes, "addresses", "mask_pii(v)", builtin)}
        session.execute("DROP TABLE addresses")
    return figures


def make_addresses(session, sizes):
    """Makes the table of values, and has the session read it alone."""
    session.execute("SET max_parallel_workers_per_gather = 0")
    session.execute("SELECT setseed(0.5)")
    session.execute(
        f"CREATE UNLOGGED TABLE addresses AS SELECT {data.RANDOM_IP} AS v FROM generate_series(1, {sizes.values})"
    )
    # Hint bits and visibility are set, so that reading writes nothing.
    session.execute("VACUUM ANALYZE addresses")


def net_ratio(session, sizes, table, ours, builtin):
    """Time of one expression over another's, both less that of reading the values."""

    def side(expression):
        return lambda _: timed(session, f"SELECT count({expression}) FROM {table}")

    sides = {"empty": side("v"), "ours": side(ours), "builtin": side(builtin)}
    taken = []
    for seconds in rounds(sizes.rounds, sides):
        net = {name: seconds[name] - seconds["empty"] for name in ("ours", "builtin")}
        taken.append({f"{name}_seconds": seconds[name] for name in sides} | {"ratio": net["ours"] / net["builtin"]})
        each = ", ".join(f"{name} {seconds / sizes.values * 1e9:.0f} ns" for name, seconds in net.items())
        progress(f"{ours}: {each}, {taken[-1]['ratio']:.2f}")
    return measured(taken, "ratio", values=sizes.values)


def parallel(cluster, sizes):
    query = "SELECT count(*) FROM (SELECT mask_pii(ip) FROM raw_source GROUP BY 1) AS masks"
    with cluster.connect() as session:
        session.execute("SELECT setseed(0.5)")
        # An address comes 50 times on average: with few recurrences the leader would have all to do alone in the end.
        session.execute(
            f"CREATE UNLOGGED TABLE addresses AS SELECT {data.RANDOM_IP} AS ip"
            f" FROM generate_series(1, {sizes.scanned // 50})"
        )
        session.execute(
            "CREATE UNLOGGED TABLE raw_source WITH (parallel_workers = 2) AS"
            " SELECT ip FROM addresses, generate_series(1, 50) ORDER BY random()"
        )
        session.execute("VACUUM ANALYZE raw_source")
        session.execute("SET work_mem = '256MB'")
        # A small table has the plan of a large one then.
        session.execute("SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0")

        def side(workers):
            def run(_):
                session.execute(f"SET max_parallel_workers_per_gather = {workers}")
                return timed(session, query)

            return run

        session.execute("SET max_parallel_workers_per_gather = 2")
        plan = [line for (line,) in session.execute(f"EXPLAIN (ANALYZE, COSTS off, TIMING off) {query}")]
        if not any("Workers Launched: 2" in line for line in plan):
            raise RuntimeError("the query is not parallel:\n" + "\n".join(plan))
        taken = []
        for seconds in rounds(sizes.rounds, {"serial": side(0), "parallel": side(2)}):
            taken.append(
                {
                    "serial_seconds": seconds["serial"],
                    "parallel_seconds": seconds["parallel"],
                    "ratio": seconds["serial"] / seconds["parallel"],
                }
            )
            progress(f"serial {seconds['serial']:.2f} s, parallel {seconds['parallel']:.2f} s")
        session.execute("DROP TABLE addresses, raw_source")
    return {"parallel_mask_speedup": measured(taken, "ratio", rows=sizes.scanned, plan=plan)}
