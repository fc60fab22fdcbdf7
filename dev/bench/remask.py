"""Speed of moving a column to another scheme or key, against an UPDATE of the same column."""

import data
from figures import measured
from ingest import check_key
from sampling import progress, rounds, timed

REMASK = "CALL remask_column('user_logins', 'masked_ip')"
# The same rows written again, and nothing else done to them.
UPDATE = "UPDATE user_logins SET masked_ip = masked_ip || ''"


def vs_update(cluster, sizes):
    count = sizes.remasked
    data.make_table(cluster, count)
    with cluster.logins("remasked") as session:
        cluster.set_primary(session, "a")
        files = {scheme: write_masked(cluster, session, scheme) for scheme in ("base64", "aes-siv")}
        cluster.set_primary(session, "b")

        def side(file, statement, key):
            def run(number):
                fill(session, file)
                seconds = timed(session, statement)
                check_key(session, key)
                if number == 0:
                    check_values(session)
                return seconds

            return run

        sides = {
            "remask": side(files["base64"], REMASK, "b"),
            "update": side(files["base64"], UPDATE, None),
            "rekey": side(files["aes-siv"], REMASK, "b"),
            "update_keyed": side(files["aes-siv"], UPDATE, "a"),
        }
        remasked, rekeyed = [], []
        for seconds in rounds(sizes.rounds, sides):
            raw_times = {f"{name}_seconds": value for name, value in seconds.items()}
            remasked.append(raw_times | {"ratio": seconds["update"] / seconds["remask"]})
            rekeyed.append(raw_times | {"ratio": seconds["update_keyed"] / seconds["rekey"]})
            rates = ", ".join(f"{name} {count / value:,.0f}/s" for name, value in seconds.items())
            progress(f"{rates}, {remasked[-1]['ratio']:.2f} and {rekeyed[-1]['ratio']:.2f}")
    return {
        "remask_vs_update": measured(remasked, "ratio", rows=count),
        "rekey_vs_update": measured(rekeyed, "ratio", rows=count),
    }


def write_masked(cluster, session, scheme):
    """A file of the rows as they are before, masked by a scheme."""
    session.execute(f"SET pg_mask.scheme = '{scheme}'")
    rows = f"SELECT {data.MASKED}, message_id FROM raw ORDER BY n"
    return data.write(session, cluster.files / f"{scheme}.bin", rows)


def fill(session, file):
    """Loads the rows again: no side must meet what another one left dead, or left to write."""
    session.execute("TRUNCATE user_logins")
    session.execute(data.copy("user_logins", file))
    session.execute("VACUUM ANALYZE user_logins")
    session.execute("CHECKPOINT")


def check_values(session):
    """Checks that the masks, under whatever key, are of the values that the events have."""
    wrong = session.execute(
        """SELECT count(*) FROM raw LEFT JOIN user_logins USING (message_id)
           WHERE unmask_pii(masked_ip) IS DISTINCT FROM body::json ->> 'ip'"""
    ).fetchone()[0]
    if wrong:
        raise RuntimeError(f"{wrong} masks are not of the values of their events any more")
