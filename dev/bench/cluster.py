"""The private PostgreSQL cluster that everything is measured on."""

import base64
import contextlib
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import psycopg

REPOSITORY = Path(__file__).resolve().parent.parent.parent
sys.path.append(str(REPOSITORY / "dev"))
import servers  # noqa: E402  (dev/servers.py)

DATABASE = "bench"

SETTINGS = {
    # A measured statement is not to meet a checkpoint, an autovacuum or a compilation of its own accord.
    "checkpoint_timeout": "1h",
    "autovacuum": "off",
    "jit": "off",
    "wal_compression": "off",
    # What a commit costs on a real server, it costs here.
    "fsync": "on",
    "synchronous_commit": "on",
    # As on a server that masks under a key: the key ring is read once, and not by each backend.
    "shared_preload_libraries": "pg_mask",
}
# Large enough for the index of the largest table, as on a server that is set up for it. WAL files are kept, so that
# samples find them made.
SETTINGS_FULL = {"shared_buffers": "2GB", "max_wal_size": "16GB", "min_wal_size": "4GB"}


class Cluster:
    """A running cluster with the extension and the roles, and a folder of files that the server can read and write."""

    def __init__(self, env, ring):
        self._env = env
        self.ring = ring
        self.files = Path(env["SERVERS_ROOT"]) / "bench"
        self.files.mkdir()
        if user := servers.server_user():
            servers.give(self.files, user)
        with self.connect(database="postgres") as session:
            session.execute(f"CREATE DATABASE {DATABASE}")
        with self.connect() as session:
            run_file(session, "sql/01_extension.sql")

    def connect(self, schema="public", database=DATABASE):
        """A session of the superuser, which COPY from and to files needs."""
        return psycopg.connect(
            host=self._env["PGHOST"],
            port=self._env["PGPORT"],
            user=self._env["PGUSER"],
            password=self._env["PGPASSWORD"],
            dbname=database,
            options=f"-c search_path={schema},public -c client_min_messages=error",
            autocommit=True,
            # Or else a query that comes often keeps the plan of settings that were changed since.
            prepare_threshold=None,
        )

    def login(self, role, password, schema):
        """The variables by which another program connects as a role, and finds this schema first."""
        return {
            "PGHOST": self._env["PGHOST"],
            "PGPORT": self._env["PGPORT"],
            "PGUSER": role,
            "PGPASSWORD": password,
            "PGDATABASE": DATABASE,
            "PGOPTIONS": f"-c search_path={schema},public",
        }

    @property
    def sqs(self):
        """The endpoint of the SQS server of the demo and the tests."""
        return self._env["AWS_ENDPOINT_URL"]

    def set_primary(self, session, key):
        """Has values masked under another key of the ring, and waits until the session does so."""
        self.ring.write(key)
        session.execute("SELECT pg_reload_conf()")
        deadline = time.monotonic() + 30
        while session.execute("SELECT mask_key(remask_pii(''))").fetchone()[0] != key:
            if time.monotonic() > deadline:
                raise RuntimeError(f"the session does not see that {key!r} is the primary key now")
            time.sleep(0.01)

    @contextlib.contextmanager
    def logins(self, schema, tables="sql/02_tables.sql"):
        """Makes user_logins, login_rejects and login_inbox in a schema of their own, removed in the end.

        `tables` is a file of the repository, or statements to run instead of one. Yields a session that finds them
        without naming the schema.
        """
        with self.connect(schema) as session:
            session.execute(f"CREATE SCHEMA {schema}")
            if tables.endswith(".sql"):
                run_file(session, tables)
            else:
                session.execute(tables)
            # The partitioned tables are login_owner's already.
            if session.execute("SELECT to_regrole('login_owner') IS NOT NULL").fetchone()[0]:
                session.execute(f"GRANT USAGE ON SCHEMA {schema} TO login_owner")
            if session.execute("SELECT to_regclass('login_inbox') IS NULL").fetchone()[0]:
                run_file(session, "sql/03_inbox.sql")
            run_file(session, "sql/04_roles.sql")
            # The flush acts as the inbox's owner, who has to get there, as in production.
            session.execute(f"GRANT USAGE ON SCHEMA {schema} TO login_owner")
            yield session
            # Not after an error, which ends the run and the whole cluster with it.
            session.execute(f"DROP SCHEMA {schema} CASCADE")


class Ring:
    """A key ring of two new keys, "a" and "b", in a file that the server's user alone can read."""

    def __init__(self, file):
        self.file = file
        self._keys = [
            {"id": name, "key": base64.b64encode(os.urandom(64)).decode(), "state": "active"} for name in ("a", "b")
        ]
        self.write("a")

    def write(self, primary):
        """Writes the file, with this key as the one that masks."""
        # Whole or not at all: a session may be reading it.
        fresh = self.file.with_suffix(".new")
        fresh.touch(mode=0o600)
        fresh.write_text(json.dumps({"primary": primary, "keys": self._keys}))
        if user := servers.server_user():
            servers.give(fresh, user)
        fresh.replace(self.file)
        self.primary = primary


def run_file(session, file):
    session.execute((REPOSITORY / file).read_text())


@contextlib.contextmanager
def running(quick):
    """Starts the servers, yields the cluster, and stops and removes them whatever happens."""
    # Not in /tmp, which may be the caller's alone: the server's user must get to the ring. The rest it must not list.
    state = Path(tempfile.mkdtemp(prefix="pg_mask-bench-", dir="/var/tmp"))
    state.chmod(0o711)
    try:
        ring = Ring(state / "keyring.json")
        settings = SETTINGS | ({} if quick else SETTINGS_FULL) | {"pg_mask.keyring_file": str(ring.file)}
        # What it says belongs to the progress.
        with contextlib.redirect_stdout(sys.stderr):
            env = servers.start(state, [f"{name}={value}" for name, value in settings.items()], DATABASE)
        yield Cluster(env, ring)
    finally:
        with contextlib.redirect_stdout(sys.stderr):
            servers.stop(state)
        shutil.rmtree(state, ignore_errors=True)
