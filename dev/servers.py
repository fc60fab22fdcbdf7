#!/usr/bin/env python3
"""A private PostgreSQL cluster and SQS server, for the demo and the tests.

    dev/servers.py start DIR [--database NAME] [--conf name=value]... [--extension FOLDER]
    dev/servers.py stop DIR
    dev/servers.py env DIR
    dev/servers.py run DIR NAME COMMAND...
    dev/servers.py end DIR NAME

`start` leaves the servers running and describes them in DIR/env, as shell assignments; `env` prints that file. Both
listen on free ports of 127.0.0.1 only, and everything they write stands under one folder in /var/tmp, which `stop`
removes. `run` starts a further process beside them, which `end` ends and `stop` too. No server or installation that was there before is touched:

PostgreSQL finds its libraries and its shared files relative to its executable. So the private cluster runs copies of
the executables in a tree of its own, where all else is links to the installed files, and the extension is put into
that tree. This needs neither root nor a write to the system's folders.
"""

import argparse
import contextlib
import os
import pwd
import secrets
import shlex
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
# Callers read dev/env.sh, which chooses it.
PG_CONFIG = os.environ.get("PG_CONFIG") or "/usr/lib/postgresql/15/bin/pg_config"

# What a server is told of the caller's environment: nothing. RUST_BACKTRACE, for one, would put backtraces into the
# errors that clients see, and PG* variables change what initdb and pg_ctl do.
BARE_ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}

SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "max_connections": "50",
    "max_prepared_transactions": "10",  # the tests prepare some
    "shared_buffers": "128MB",
    "timezone": "UTC",
    "log_timezone": "UTC",
}


class Failure(Exception):
    """Something that the user can read and act upon."""


def start(state_dir, conf=(), database="postgres", extension=None):
    """Starts both servers, or finds them running, and returns the variables of DIR/env.

    `conf` holds further PostgreSQL settings as "name=value". `database` is the one the variables name; it is not
    created. `extension` is a folder in which dev/stage-extension laid out the extension, unless it is the usual one.
    """
    state_dir = Path(state_dir).resolve()
    settings = SETTINGS | dict(setting.split("=", 1) for setting in conf)
    # Before anything is started, so that it is found at once when one is missing.
    extension = Path(extension) if extension else built_extension()
    sqs_server = installed_sqs_server()

    env = read_env(state_dir)
    if env and is_healthy(env):
        if env["SERVERS_CONF"] != " ".join(conf):
            raise Failure(f"the servers of {state_dir} run with other settings: stop them first")
        # A backend that has the library loaded keeps the old one; new sessions get this one.
        install(extension, Path(env["SERVERS_ROOT"]))
        print(f"servers: already running in {env['SERVERS_ROOT']}")
        return env
    stop(state_dir)

    # Not in the home or the clone: the server's user must be able to get there.
    root = Path(tempfile.mkdtemp(prefix="pg_mask-", dir="/var/tmp"))
    env = {"SERVERS_ROOT": str(root)}
    try:
        # From here on `stop` knows what there is to remove, whatever becomes of this process.
        write_env(state_dir, env)
        root.chmod(0o755)
        bindir = make_tree(root)
        install(extension, root)

        password = secrets.token_urlsafe(16)
        pg_port = start_postgres(root, settings, password)
        sqs_port = start_sqs(root, sqs_server)
        env |= {
            "SERVERS_CONF": " ".join(conf),
            "PGHOST": "127.0.0.1",
            "PGPORT": str(pg_port),
            "PGUSER": "postgres",
            "PGPASSWORD": password,
            "PGDATABASE": database,
            "DATABASE_URL": f"postgresql://postgres:{password}@127.0.0.1:{pg_port}/{database}",
            "PGDATA": str(root / "data"),
            "PGLOG": str(root / "log/postgres.log"),
            "PGBIN": str(bindir),
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{sqs_port}",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "us-east-1",
            # A profile of the user's could name another endpoint, and demo events would go there.
            "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        }
        write_env(state_dir, env)
        if not is_healthy(env):
            raise Failure("the servers started but do not answer")
    except BaseException as error:
        if isinstance(error, Failure):
            for log in (root / "log/postgres.log", root / "sqs/log"):
                if log.exists():
                    lines = log.read_text(errors="replace").splitlines()[-15:]
                    print(f"--- the end of {log}:", *lines, sep="\n", file=sys.stderr)
        stop(state_dir)
        raise
    print(f"servers: PostgreSQL on port {pg_port}, SQS on port {sqs_port}, in {root}")
    return env


def stop(state_dir):
    """Stops the servers of DIR and removes all that they left, DIR included. Nothing there is fine too."""
    state_dir = Path(state_dir).resolve()
    env = read_env(state_dir)
    if env:
        root = Path(env["SERVERS_ROOT"])
        for home in root.glob("beside/*"):
            end(root, pid_in(home / "pid"), signal.SIGTERM)
        end(root, pid_in(root / "data/postmaster.pid"), signal.SIGINT)  # SIGINT: a fast shutdown
        end(root, pid_in(root / "sqs/pid"), signal.SIGTERM)
        if root.exists():
            shutil.rmtree(root)
        (state_dir / "env").unlink()
        print(f"servers: stopped, and {root} removed")
    if state_dir.is_dir() and not any(state_dir.iterdir()):
        state_dir.rmdir()


def run_beside(state_dir, name, command):
    """Starts a process beside the servers, with the caller's environment."""
    home = beside(state_dir, name)
    spawn(home, command, os.environ | {"HOME": str(home)})
    print(home)


def end_beside(state_dir, name):
    """Ends the process of this name, if there is one, and removes what it left."""
    home = beside(state_dir, name)
    end(home.parent.parent, pid_in(home / "pid"), signal.SIGTERM)
    if home.exists():
        shutil.rmtree(home)


def beside(state_dir, name):
    env = read_env(state_dir)
    if not env:
        raise Failure(f"no servers in {state_dir}")
    return Path(env["SERVERS_ROOT"]) / "beside" / name


# --- PostgreSQL ---------------------------------------------------------------------------------------------------


def pg_config(*options):
    """What the installation says of itself, a string for each option."""
    try:
        output = subprocess.run(
            [PG_CONFIG, *(f"--{option}" for option in options)], check=True, capture_output=True, text=True
        ).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise Failure(f"PostgreSQL is not installed as expected, run dev/install first: {error}") from None
    return output.splitlines()


def make_tree(root):
    """Makes the relocated installation in `root` and returns its folder of executables."""
    bindir, sharedir, pkglibdir = map(Path, pg_config("bindir", "sharedir", "pkglibdir"))
    private = root / bindir.relative_to(prefix())
    private.mkdir(parents=True)
    for name in ("postgres", "initdb", "pg_ctl"):
        # Copies: PostgreSQL follows a link to learn where it is.
        shutil.copy2(bindir / name, private)
    link = link_function()
    for name in os.listdir(bindir):
        if not (private / name).exists():
            link(bindir / name, private / name)
    for folder in (sharedir, pkglibdir):
        shutil.copytree(
            folder,
            root / folder.relative_to(prefix()),
            copy_function=link,
            # An installed version of the extension must not show through.
            ignore=shutil.ignore_patterns("pg_mask*", "pgxs", "man"),
        )
    return private


def link_function():
    """How an installed file gets into the tree: by a link, or by a copy if the server's user can't get there, as in a home."""
    folders = [prefix(), *prefix().parents]
    can_enter = server_user() is None or all(folder.stat().st_mode & stat.S_IXOTH for folder in folders)
    return os.symlink if can_enter else shutil.copy2


def prefix():
    """The folder that holds PostgreSQL's executables, libraries and shared files."""
    folders = pg_config("bindir", "sharedir", "pkglibdir")
    common = Path(os.path.commonpath(folders))
    if common == Path("/"):
        raise Failure(f"this PostgreSQL cannot be relocated: {folders} have no prefix in common")
    return common


def built_extension():
    """The folder in which `dev/build` laid out the extension."""
    major = pg_config("version")[0].split()[1].split(".")[0]  # PostgreSQL 15.6 (Debian …)
    package = REPOSITORY / f"target/release/pg_mask-pg{major}"
    if not package.is_dir():
        raise Failure(f"{package} is not there: run dev/build first")
    return package


def install(package, root):
    """Puts the built extension into the tree."""
    for source in package.rglob("*"):
        if source.is_file():
            target = root / (Path("/") / source.relative_to(package)).relative_to(prefix())
            # By a rename, and never written in place: a running backend has the old file mapped.
            fresh = target.with_name(target.name + ".new")
            shutil.copyfile(source, fresh)
            fresh.chmod(0o644)
            fresh.replace(target)


def start_postgres(root, settings, password):
    """Makes a cluster, starts it and returns its port."""
    bindir = root / Path(*pg_config("bindir")).relative_to(prefix())
    user = server_user()
    for name in ("data", "log", "socket"):
        (root / name).mkdir(mode=0o700)
        if user:
            give(root / name, user)

    # An installation that brings its own libraries must not find the system's.
    libraries = root / Path(*pg_config("pkglibdir")).relative_to(prefix())
    own = {"LD_LIBRARY_PATH": str(libraries)} if (libraries / "libpq.so.5").exists() else {}
    environment = BARE_ENVIRONMENT | own

    def run(*command):
        # The user's home and the clone may be out of the server user's reach, so neither is the working folder.
        identity = identity_of(user)
        result = subprocess.run(
            command,
            env=environment,
            cwd=root,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            **identity,
        )
        if result.returncode != 0:
            raise Failure(f"{Path(command[0]).name} failed:\n{result.stdout}{result.stderr}")

    # One rule for socket and TCP, as any user of the machine can reach both: the password.
    password_file = root / "data.password"
    password_file.touch(mode=0o600)
    password_file.write_text(password)
    if user:
        give(password_file, user)
    run(
        bindir / "initdb",
        *("--pgdata", root / "data", "--username", "postgres", "--pwfile", password_file, "--auth", "scram-sha-256"),
        *("--encoding", "UTF8", "--locale", "C.UTF-8", "--no-sync"),
    )
    password_file.unlink()

    configuration = root / "data/postgresql.conf"
    append_settings(configuration, settings | {"unix_socket_directories": str(root / "socket")})
    log = root / "log/postgres.log"
    for attempt in range(5):
        port = free_port()
        # Into the file, where the last one wins, so that a restart finds it too.
        append_settings(configuration, {"port": str(port)})
        try:
            run(bindir / "pg_ctl", "start", "--wait", "--pgdata", root / "data", "--log", log)
            return port
        except Failure:
            taken = log.exists() and "Address already in use" in log.read_text(errors="replace")
            if not taken or attempt == 4:
                raise


def append_settings(file, settings):
    with file.open("a") as out:
        for name, value in settings.items():
            out.write("{} = '{}'\n".format(name.strip(), value.strip().replace("'", "''")))


def server_user():
    """The account to run PostgreSQL as, or None for ourselves: it refuses to be run by root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise Failure("there is no user 'postgres' or 'nobody' to run the server as, and root may not")


def identity_of(user):
    """The arguments of subprocess.run() that run a command as this account."""
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if user else {}


def give(path, user):
    """Makes a file or folder the property of an account."""
    os.chown(path, user.pw_uid, user.pw_gid)


# --- SQS ----------------------------------------------------------------------------------------------------------


def installed_sqs_server():
    """The Python of the virtual environment that has the SQS server."""
    # Where it is, dev/env.sh says; a caller that has not read it can start the servers too.
    where = ["bash", "-c", '. dev/env.sh && echo "$MINISTACK_PYTHON"']
    python = subprocess.run(where, cwd=REPOSITORY, check=True, capture_output=True, text=True).stdout.strip()
    if not os.access(python, os.X_OK):
        raise Failure("the SQS server is not installed: run dev/install first")
    return python


def start_sqs(root, python):
    """Starts the SQS server and returns its port."""
    home = root / "sqs"
    for attempt in range(5):
        port = free_port()
        environment = BARE_ENVIRONMENT | {
            "HOME": str(home),
            "TMPDIR": str(home),
            "GATEWAY_PORT": str(port),
            "BIND_HOST": "127.0.0.1",
            "SERVICES": "sqs,sts",
            "LOG_LEVEL": "WARNING",
            # It would otherwise open further ports, and remove Docker containers that another one has started.
            "IOT_MTLS_ENABLED": "0",
            "SFTP_ENABLED": "0",
            "DOCKER_HOST": f"unix://{home}/no-docker",
        }
        process = spawn(home, [python, "-m", "ministack"], environment)
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            if sqs_answers(f"http://127.0.0.1:{port}"):
                return port
            time.sleep(0.1)
        if process.poll() is None or b"already in use" not in (home / "log").read_bytes() or attempt == 4:
            raise Failure("the SQS server did not start")


def sqs_answers(endpoint):
    # Without the proxies of the user's environment.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{endpoint}/_ministack/health", timeout=5) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False


# --- processes and state ------------------------------------------------------------------------------------------


def spawn(home, command, environment):
    """Starts a process with a folder of its own, which has its log and its pid."""
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (home / "log").open("ab") as log:
        process = subprocess.Popen(
            command,
            env=environment,
            cwd=home,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            # Or the end of the shell that started us would be its end too.
            start_new_session=True,
        )
    (home / "pid").write_text(f"{process.pid}\n")
    return process


def is_healthy(env):
    """Whether both servers of `env` answer, and are ours: after a reboot others may have their ports."""
    if "AWS_ENDPOINT_URL" not in env:
        return False
    root = Path(env["SERVERS_ROOT"])
    if not belongs_to(root, pid_in(root / "sqs/pid")) or not sqs_answers(env["AWS_ENDPOINT_URL"]):
        return False
    login = {name: env[name] for name in ("PGHOST", "PGPORT", "PGUSER", "PGPASSWORD")}
    psql = [Path(env["PGBIN"]) / "psql", "-XqtAc", "SHOW data_directory", "-d", "postgres"]
    answer = subprocess.run(psql, env=BARE_ENVIRONMENT | login, capture_output=True, text=True)
    return answer.stdout.strip() == env["PGDATA"]


def free_port():
    # It may be taken again before the server binds it: the caller tries again.
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def pid_in(file):
    try:
        return int(file.read_text().split()[0])
    except (FileNotFoundError, IndexError, ValueError):
        return None


def belongs_to(root, pid):
    """Whether the process is one that was started for `root`: a pid may long belong to another process."""
    # PostgreSQL has it in its arguments, the others in their environment.
    for file, signs in (("cmdline", {f"{root}/data"}), ("environ", {f"HOME={root}/sqs"} | homes_beside(root))):
        try:
            words = Path(f"/proc/{pid}/{file}").read_bytes().split(b"\0")
            if not {os.fsencode(sign) for sign in signs}.isdisjoint(words):
                return True
        except OSError:
            pass  # gone, or another user's
    return False


def homes_beside(root):
    return {f"HOME={home}" for home in root.glob("beside/*")}


def end(root, pid, polite):
    """Ends a process of ours: politely, and after half a minute for certain."""
    for sign in (polite, signal.SIGKILL):
        if not belongs_to(root, pid):
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, sign)
        deadline = time.monotonic() + 30
        while belongs_to(root, pid) and time.monotonic() < deadline:
            time.sleep(0.05)


def read_env(state_dir):
    """The variables in DIR/env, or None where there are none."""
    try:
        words = shlex.split((Path(state_dir) / "env").read_text())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError:
        raise Failure(f"{state_dir} belongs to another user's servers") from None
    return dict(word.split("=", 1) for word in words)


def write_env(state_dir, env):
    state_dir.mkdir(parents=True, exist_ok=True)
    fresh = state_dir / "env.new"
    fresh.touch(mode=0o600)  # it holds the password
    fresh.write_text("".join("{}='{}'\n".format(name, value.replace("'", "'\\''")) for name, value in env.items()))
    fresh.replace(state_dir / "env")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for command in ("start", "stop", "env", "run", "end"):
        sub = commands.add_parser(command)
        sub.add_argument("dir", metavar="DIR")
        if command == "start":
            sub.add_argument("--database", default="postgres", help="the database that DIR/env names")
            sub.add_argument("--conf", action="append", default=[], metavar="NAME=VALUE", help="a PostgreSQL setting")
            sub.add_argument("--extension", metavar="FOLDER", help="what dev/stage-extension made, for this PostgreSQL")
        if command in ("run", "end"):
            sub.add_argument("name", metavar="NAME")
        if command == "run":
            sub.add_argument("process", metavar="COMMAND", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    # The tree must be readable to the server's user, whatever the caller's umask.
    os.umask(0o022)
    try:
        if options.command == "start":
            if bad := [setting for setting in options.conf if "=" not in setting]:
                parser.error(f"--conf takes NAME=VALUE, not {bad[0]!r}")
            start(options.dir, options.conf, options.database, options.extension)
        elif options.command == "stop":
            stop(options.dir)
        elif options.command == "run":
            run_beside(options.dir, options.name, options.process)
        elif options.command == "end":
            end_beside(options.dir, options.name)
        elif read_env(options.dir):
            print((Path(options.dir) / "env").read_text(), end="")
        else:
            raise Failure(f"no servers in {options.dir}")
    except Failure as failure:
        sys.exit(f"servers: {failure}")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
