"""The private PostgreSQL cluster that everything is measured on."""

import contextlib
import shutil
import sys
import tempfile
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
}
# Large enough for the index of the largest table, as on a server that is set up for it. WAL files are kept, so that
# samples find them made.
SETTINGS_FULL = {"shared_buffers": "2GB", "max_wal_size": "16GB", "min_wal_size": "4GB"}


class Cluster:
    """A running cluster with the extension and the roles, and a folder of files that the server can read and write."""

    def __init__(self, env):
        self._env = env
        self.files = Path(env["SERVERS_ROOT"]) / "bench"
        self.files.mkdir()
        if user := servers.server_user():
            shutil.chown(self.files, user, user)
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
        )

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
            if session.execute("SELECT to_regclass('login_inbox') IS NULL").fetchone()[0]:
                run_file(session, "sql/03_inbox.sql")
            run_file(session, "sql/04_roles.sql")
            # The flush acts as the inbox's owner, who has to get there, as in production.
            session.execute(f"GRANT USAGE ON SCHEMA {schema} TO login_owner")
            yield session
            # Not after an error, which ends the run and the whole cluster with it.
            session.execute(f"DROP SCHEMA {schema} CASCADE")


def run_file(session, file):
    session.execute((REPOSITORY / file).read_text())


@contextlib.contextmanager
def running(quick):
    """Starts the servers, yields the cluster, and stops and removes them whatever happens."""
    settings = SETTINGS | ({} if quick else SETTINGS_FULL)
    state = tempfile.mkdtemp(prefix="pg_mask-bench-")
    try:
        # What it says belongs to the progress.
        with contextlib.redirect_stdout(sys.stderr):
            env = servers.start(state, [f"{name}={value}" for name, value in settings.items()], DATABASE)
        yield Cluster(env)
    finally:
        with contextlib.redirect_stdout(sys.stderr):
            servers.stop(state)
        shutil.rmtree(state, ignore_errors=True)
