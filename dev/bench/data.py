"""Events like those of dev/events.py, made by the server: in a table, and in files for COPY.

The files are the server's own, so neither the client nor a network is in what is measured.
"""

TABLE = "raw"


def random_events(count, day):
    """A query for `count` events sent on `day`, with bodies of about 170 bytes."""
    return f"""
        SELECT n,
               gen_random_uuid() AS message_id,
               timestamptz '{day} 00:00:00+00' + random() * interval '23:59:59' AS sent_at,
               format(
                   '{{"user_id": "%s", "app_version": "%s", "device_type": "%s", "ip": "%s", "locale": %s, '
                   '"device_id": "%s"}}',
                   md5(random()::text)::uuid,
                   (ARRAY['2.3.0', '2.2.1', '2.1.0', '1.9.12', '0.2.5'])[1 + floor(random() * 5)::int],
                   (ARRAY['android', 'android', 'ios'])[1 + floor(random() * 3)::int],
                   {RANDOM_IP},
                   -- The seventh is NULL.
                   coalesce('"' || (ARRAY['RU', 'US', 'DE', 'BR', 'IN', 'FR'])[1 + floor(random() * 7)::int] || '"',
                            'null'),
                   {RANDOM_DEVICE}
               ) AS body
        FROM generate_series(1, {count}) AS n"""


# Integers, because to print a floating-point number takes longer than all the rest.
RANDOM_IP = """format('%s.%s.%s.%s', 192 + (random() * 7)::int, 1 + (random() * 159)::int, (random() * 255)::int,
                      1 + (random() * 253)::int)"""
RANDOM_DEVICE = """format('%s-%s-%s', 100 + (random() * 899)::int, lpad((random() * 99)::int::text, 2, '0'),
                          lpad((random() * 9999)::int::text, 4, '0'))"""


def make_table(cluster, count):
    """Makes the table of events: n, and what an inbox takes."""
    with cluster.connect() as session:
        session.execute("SELECT setseed(0.5)")
        session.execute(f"DROP TABLE IF EXISTS {TABLE}")
        session.execute(f"CREATE UNLOGGED TABLE {TABLE} AS {random_events(count, today(session))}")
        # With hint bits and statistics, so that no measured statement has to see to those.
        session.execute(f"VACUUM ANALYZE {TABLE}")


def today(session):
    return session.execute("SELECT current_date").fetchone()[0]


MASKED = """
    body::json ->> 'user_id'                                 AS user_id,
    body::json ->> 'device_type'                             AS device_type,
    mask_pii(body::json ->> 'ip')                            AS masked_ip,
    mask_pii(body::json ->> 'device_id')                     AS masked_device_id,
    body::json ->> 'locale'                                  AS locale,
    replace(body::json ->> 'app_version', '.', '')::integer  AS app_version,
    (sent_at AT TIME ZONE 'UTC')::date                       AS create_date"""


def write(session, file, query):
    """Writes the rows of a query into a file, for COPY … FROM."""
    session.execute(f"COPY ({query}) TO '{file}' WITH (FORMAT binary)")
    return file


def copy(target, file):
    return f"COPY {target} FROM '{file}' WITH (FORMAT binary)"
