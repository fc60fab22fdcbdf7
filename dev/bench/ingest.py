"""Rates: the inbox against plain COPY of masked rows, and against plain SQL."""

import statistics

import data
from figures import measured
from sampling import progress, rounds, timed

# The columns of user_logins without message_id, which only makes sense with an index.
PLAIN = """
    CREATE TABLE user_logins (
        user_id varchar(128) NOT NULL, device_type varchar(32), masked_ip varchar(256), masked_device_id varchar(256),
        locale varchar(32), app_version integer, create_date date
    );
    CREATE TABLE login_rejects (
        message_id uuid UNIQUE, sent_at timestamptz, reason text NOT NULL, masked_body text,
        rejected_at timestamptz NOT NULL
    );
    SELECT attach_inbox('login_inbox', 'user_logins', 'login_rejects', '{
        "user_id": {"copy": "user_id"}, "device_type": {"copy": "device_type"}, "masked_ip": {"mask": "ip"},
        "masked_device_id": {"mask": "device_id"}, "locale": {"copy": "locale"},
        "app_version": {"version": "app_version"}, "create_date": "sent_date"
    }')"""

# What one would write without the extension …
SQL = """
    INSERT INTO user_logins
    SELECT body::json ->> 'user_id',
           body::json ->> 'device_type',
           encode(convert_to(body::json ->> 'ip', 'utf8'), 'base64'),
           encode(convert_to(body::json ->> 'device_id', 'utf8'), 'base64'),
           body::json ->> 'locale',
           replace(body::json ->> 'app_version', '.', '')::integer,
           (sent_at AT TIME ZONE 'UTC')::date,
           message_id
    FROM raw
    ON CONFLICT DO NOTHING"""

# … and what somebody would who knows that ->> parses the event again each time.
SQL_PARSING_ONCE = """
    INSERT INTO user_logins
    SELECT e.user_id,
           e.device_type,
           encode(convert_to(e.ip, 'utf8'), 'base64'),
           encode(convert_to(e.device_id, 'utf8'), 'base64'),
           e.locale,
           replace(e.app_version, '.', '')::integer,
           (sent_at AT TIME ZONE 'UTC')::date,
           message_id
    FROM raw, json_to_record(body::json)
              AS e(user_id text, device_type text, ip text, device_id text, locale text, app_version text)
    ON CONFLICT DO NOTHING"""


def vs_copy_indexed(cluster, sizes):
    with cluster.logins("indexed") as session:
        return {"ingest_vs_copy_indexed": vs_copy(cluster, session, sizes.indexed, sizes.rounds, ", message_id")}


def vs_copy_plain(cluster, sizes):
    with cluster.logins("plain", PLAIN) as session:
        return {"ingest_vs_copy_plain": vs_copy(cluster, session, sizes.plain, sizes.rounds, "")}


def vs_copy(cluster, session, count, samples, id_column):
    data.make_table(cluster, count)
    raw = data.write(session, cluster.files / "events.bin", "SELECT message_id, sent_at, body FROM raw ORDER BY n")
    rows = f"SELECT {data.MASKED}{id_column} FROM raw ORDER BY n"
    masked = data.write(session, cluster.files / "masked.bin", rows)

    def inbox(number):
        empty(session)
        seconds = timed(session, data.copy("login_inbox", raw))
        check_all_stored(session, count)
        if number == 0:
            check_same_rows(session, rows)
        return seconds

    def plain_copy(_):
        empty(session)
        seconds = timed(session, data.copy("user_logins", masked))
        check_rows(session, count)
        return seconds

    taken = []
    for seconds in rounds(samples, {"inbox": inbox, "copy": plain_copy}):
        taken.append(
            {
                "inbox_seconds": seconds["inbox"],
                "copy_seconds": seconds["copy"],
                "ratio": seconds["copy"] / seconds["inbox"],
            }
        )
        progress(
            f"inbox {count / seconds['inbox']:,.0f}/s, copy {count / seconds['copy']:,.0f}/s, {taken[-1]['ratio']:.2f}"
        )
    return measured(taken, "ratio", events=count)


def vs_sql(cluster, sizes):
    count = sizes.indexed
    data.make_table(cluster, count)
    with cluster.logins("indexed") as session:
        raw = data.write(session, cluster.files / "events.bin", "SELECT message_id, sent_at, body FROM raw ORDER BY n")

        def side(statement, check):
            def run(_):
                empty(session)
                seconds = timed(session, statement)
                check(session, count)
                return seconds

            return run

        sides = {
            "copy": side(data.copy("login_inbox", raw), check_all_stored),
            "sql": side(SQL, check_rows),
            "insert": side("INSERT INTO login_inbox SELECT message_id, sent_at, body FROM raw", check_all_stored),
            "sql_parsing_once": side(SQL_PARSING_ONCE, check_rows),
        }
        by_copy, by_insert, against_best = [], [], []
        for seconds in rounds(sizes.rounds, sides):
            raw_times = {f"{name}_seconds": value for name, value in seconds.items()}
            by_copy.append(raw_times | {"ratio": seconds["sql"] / seconds["copy"]})
            by_insert.append(raw_times | {"ratio": seconds["sql"] / seconds["insert"]})
            against_best.append(seconds["sql_parsing_once"] / seconds["copy"])
            rates = ", ".join(f"{name} {count / value:,.0f}/s" for name, value in seconds.items())
            progress(f"{rates}, {by_copy[-1]['ratio']:.2f} and {by_insert[-1]['ratio']:.2f}")
    return {
        "ingest_vs_sql": measured(
            by_copy, "ratio", events=count, against_json_to_record=statistics.median(against_best)
        ),
        "ingest_insert_vs_sql": measured(by_insert, "ratio", events=count),
    }


def siv_vs_base64(cluster, sizes):
    count = sizes.indexed
    data.make_table(cluster, count)
    with cluster.logins("indexed") as session:
        raw = data.write(session, cluster.files / "events.bin", "SELECT message_id, sent_at, body FROM raw ORDER BY n")

        def side(scheme, key):
            def run(number):
                session.execute(f"SET pg_mask.scheme = '{scheme}'")
                empty(session)
                seconds = timed(session, data.copy("login_inbox", raw))
                check_all_stored(session, count)
                check_key(session, key)
                if number == 0:
                    check_same_rows(session, f"SELECT {data.MASKED}, message_id FROM raw")
                return seconds

            return run

        taken = []
        for seconds in rounds(
            sizes.rounds, {"base64": side("base64", None), "siv": side("aes-siv", cluster.ring.primary)}
        ):
            taken.append(
                {f"{name}_seconds": value for name, value in seconds.items()}
                | {"ratio": seconds["base64"] / seconds["siv"]}
            )
            rates = ", ".join(f"{name} {count / value:,.0f}/s" for name, value in seconds.items())
            progress(f"{rates}, {taken[-1]['ratio']:.2f}")
    return {"siv_vs_base64": measured(taken, "ratio", events=count)}


def bad_rows(cluster, sizes):
    """A chunk in which Postgres refuses one row, the last that is written, and one in which it refuses all, against the same
    without that fault."""
    count = sizes.chunk
    data.make_table(cluster, count)
    with cluster.logins("indexed") as session:
        session.execute("ALTER TABLE user_logins ADD CHECK (locale <> 'refused')")
        for table, refused in [
            ("with_bad", "message_id = max(message_id::text) OVER () ::uuid"),
            ("all_bad", "true"),
        ]:
            session.execute(
                f"""CREATE UNLOGGED TABLE {table} AS
                    SELECT n, message_id, sent_at,
                           CASE WHEN {refused} THEN (body::jsonb || '{{"locale": "refused"}}')::text ELSE body END AS body
                    FROM raw"""
            )

        def side(table, expected):
            def run(_):
                empty(session)
                seconds = timed(session, f"INSERT INTO login_inbox SELECT message_id, sent_at, body FROM {table}")
                check_counts(session, *expected)
                return seconds

            return run

        sides = {
            "clean": side("raw", (count, 0, 0)),
            "bad": side("with_bad", (count - 1, 0, 1)),
            "all_bad": side("all_bad", (0, 0, count)),
        }
        one, all_of_them = [], []
        # So short that it takes more of them to mean something.
        for seconds in rounds(3 * sizes.rounds, sides):
            clean = {"clean_seconds": seconds["clean"]}
            for taken, name in [(one, "bad"), (all_of_them, "all_bad")]:
                bad = {"bad_seconds": seconds[name], "ratio": seconds[name] / seconds["clean"]}
                taken.append(clean | bad)
        one, all_of_them = (measured(taken, "ratio", events=count) for taken in (one, all_of_them))
        progress(f"{count:,} events with a bad one: {one['value']:.2f}, all bad: {all_of_them['value']:.2f}")
    return {"one_bad_row": one, "all_bad_rows": all_of_them}


def empty(session):
    session.execute("TRUNCATE user_logins, login_rejects")
    # What the last sample left to write is not to be written during the next one.
    session.execute("CHECKPOINT")


def check_rows(session, count):
    there = session.execute("SELECT count(*) FROM user_logins").fetchone()[0]
    if there != count:
        raise RuntimeError(f"of {count} rows there are {there} in user_logins")


def check_all_stored(session, count):
    """Checks that the last inbox statement stored all its events in a table that had been empty."""
    check_counts(session, count)
    check_rows(session, count)


def check_counts(session, stored, duplicate=0, rejected=0):
    counts = session.execute("SELECT stored, duplicate, rejected FROM inbox_counts()").fetchone()
    if counts != (stored, duplicate, rejected):
        raise RuntimeError(f"the inbox stored, found duplicate and rejected {counts}: not {stored, duplicate, rejected}")


def check_key(session, key):
    """Checks that all addresses are masked under a key, or with None, under none."""
    others = session.execute(
        "SELECT count(*) FROM user_logins WHERE mask_key(masked_ip) IS DISTINCT FROM %s", [key]
    ).fetchone()[0]
    if others:
        raise RuntimeError(f"{others} rows are not masked under the key {key!r}")


def check_same_rows(session, rows):
    """Checks that both sides store the same rows: otherwise their times would say nothing."""
    different = session.execute(
        f"""SELECT count(*) FROM (
                (TABLE user_logins EXCEPT ALL ({rows})) UNION ALL (({rows}) EXCEPT ALL TABLE user_logins)
            ) AS difference"""
    ).fetchone()[0]
    if different:
        raise RuntimeError(f"the inbox and the query that masks beforehand differ in {different} rows")
