"""Two loaders at work, and what happens to them."""

import http.client
import json
import random
import secrets
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import psycopg

REPOSITORY = Path(__file__).resolve().parent.parent.parent
sys.path.append(str(REPOSITORY / "dev"))
import servers  # noqa: E402  (dev/servers.py)

QUEUE = "login-queue"
LOADERS = ("loader-1", "loader-2")

LOGIN = (
    '{"user_id": "user-{n}", "app_version": "2.3.0", "device_type": "android", "ip": "192.0.2.17", "locale": "DE",'
    ' "device_id": "593-47-5928"}'
)
# What cannot be a login, and how often it comes.
ODD = {
    '{"foo": "oops_wrong_msg_type", "bar": "{n}"}': 8,
    '{"user_id": "user-{n}", "app_version": "2.3': 4,
    '{"user_id": "user-{n}", "app_version": "two"}': 3,
    '["user-{n}"]': 1,
    '{"user_id": "user-{n}", "locale": "' + "x" * 40 + '"}': 2,
}


class Demo:
    """Private servers and loaders, as long as the with statement lasts."""

    def __init__(self, state):
        self._state = state
        self._processes = []
        self._env = servers.start(state)
        try:
            self._begin()
        except BaseException:
            self.__exit__()
            raise

    def _begin(self):
        password = secrets.token_urlsafe(16)
        with self._session() as session:
            for file in sorted((REPOSITORY / "sql").glob("*.sql")):
                session.execute(file.read_text())
            session.execute(f"CREATE ROLE my_loader LOGIN PASSWORD '{password}' IN ROLE login_loader")
        stub = self._start([REPOSITORY / "target/release/sqs-stub", "--delay-ms", "5"], stdout=subprocess.PIPE)
        self._stub = urlsplit(stub.stdout.readline().strip())
        self._call("fill", {"queue": QUEUE, "count": 0, "template": LOGIN})
        self.addresses = {}
        for name in LOADERS:
            self.addresses[name] = f"127.0.0.1:{servers.free_port()}"
            environment = {
                **{name: self._env[name] for name in ("PGHOST", "PGPORT", "PGDATABASE")},
                **{name: value for name, value in self._env.items() if name.startswith("AWS_")},
                "PGUSER": "my_loader",
                "PGPASSWORD": password,
                "AWS_ENDPOINT_URL": self._stub.geturl(),
                "LOADER_METRICS_ADDRESS": self.addresses[name],
                "LOADER_POLLERS": "8",
                "LOADER_LINGER": "200",
            }
            log = (self._state / f"{name}.log").open("w")
            loader = REPOSITORY / "target/release/loader"
            self._start([loader, "--queue", QUEUE, "--inbox", "login_inbox"], env=environment, stdout=log, stderr=log)

    def _start(self, command, **how):
        process = subprocess.Popen(command, text=True, **how)
        self._processes.append(process)
        return process

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in reversed(self._processes):
            process.terminate()
        for process in self._processes:
            process.wait()
        for name in LOADERS:
            (self._state / f"{name}.log").unlink(missing_ok=True)
        servers.stop(self._state)

    def play(self, seconds):
        """Events at a rate that goes up and down, and one trouble after the other."""
        over, began = threading.Event(), time.monotonic()
        sender = threading.Thread(target=self._send, args=(seconds, over), daemon=True)
        sender.start()
        try:
            for at, what in (
                (0.22, lambda: self._faults(duplicate=0.05)),
                (0.34, lambda: self._faults()),
                (0.36, self._restart),
                (0.55, self._lock),
                (0.68, lambda: self._faults(partial_delete=0.2, only=["ReceiveMessage"], throttle=0.2)),
                (0.80, lambda: self._faults()),
                (0.86, lambda: self._conflicts(True)),
                (0.92, lambda: self._conflicts(False)),
                (1.00, over.set),
            ):
                time.sleep(max(0, began + at * seconds - time.monotonic()))
                what()
        finally:
            over.set()
            sender.join()

    def _send(self, seconds, over):
        dice = random.Random(7)
        began = time.monotonic()
        while not over.wait(0.5):
            done = (time.monotonic() - began) / seconds
            rate = 500 + 300 * dice.random() + (1500 if 0.1 < done < 0.3 else 0)
            self._call("fill", {"queue": QUEUE, "count": int(rate / 2), "template": LOGIN})
            # A sender that has changed its format, for a while.
            share = 0.06 if 0.6 < done < 0.75 else 0.01
            for template, weight in ODD.items():
                count = int(rate / 2 * share * weight / sum(ODD.values()) + dice.random())
                if count:
                    self._call("fill", {"queue": QUEUE, "count": count, "template": template})

    # --- trouble ----------------------------------------------------------------------------------------------------

    def _restart(self):
        """PostgreSQL is away for some seconds."""
        how = servers.identity_of(servers.server_user())
        for command in ("stop", "start"):
            subprocess.run(
                [f"{self._env['PGBIN']}/pg_ctl", command, "-D", self._env["PGDATA"], "-l", self._env["PGLOG"]],
                check=True,
                env=servers.BARE_ENVIRONMENT,
                cwd=self._env["SERVERS_ROOT"],
                stdout=subprocess.DEVNULL,
                **how,
            )
            if command == "stop":
                time.sleep(20)

    def _lock(self):
        """Somebody holds the table."""
        with self._session(autocommit=False) as session:
            session.execute("LOCK TABLE user_logins IN ACCESS EXCLUSIVE MODE")
            time.sleep(12)

    def _conflicts(self, on):
        """A trigger that fails now and then."""
        with self._session() as session:
            if on:
                session.execute(
                    """CREATE FUNCTION conflict() RETURNS trigger LANGUAGE plpgsql AS
                           $$ BEGIN IF random() < 0.2 THEN RAISE SQLSTATE '40001'; END IF; RETURN NULL; END $$;
                       CREATE TRIGGER conflict AFTER INSERT ON user_logins EXECUTE FUNCTION conflict()"""
                )
            else:
                session.execute("DROP TRIGGER conflict ON user_logins")

    def _faults(self, **faults):
        self._call("faults", faults)

    def _call(self, command, body):
        connection = http.client.HTTPConnection(self._stub.netloc, timeout=60)
        connection.request("POST", f"/_stub/{command}", json.dumps(body))
        answer = connection.getresponse()
        if answer.status != 200:
            raise RuntimeError(f"dev/sqs-stub answers {answer.status} to {command}: {answer.read()[:200]!r}")
        connection.close()

    def _session(self, autocommit=True):
        return psycopg.connect(self._env["DATABASE_URL"], autocommit=autocommit)
