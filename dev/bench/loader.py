"""The loader against what it cannot do without (receiving and deleting), and against what one would write instead."""

import contextlib
import os
import secrets
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import NamedTuple

import boto3

from figures import measured
from ingest import check_rows, empty
from sampling import progress, rounds
from stub import CREDENTIALS, QUEUE, Stub, programs

SCHEMA = "loaded"
PEERS = Path(__file__).resolve().parent / "peers"

POLLERS = 16  # without delay more of them bring nothing
DELAY_MS, DELAYED_POLLERS = 20, 64
# What as many pollers could receive if nothing but the delay took time.
CEILING = DELAYED_POLLERS * 10 / (DELAY_MS / 1000)

LOOK_EVERY = 0.1  # seconds
WINDOW = 0.5  # … over which a rate is taken
STUCK_AFTER = 60
MINISTACK_ROUNDS = 1

TICKS = os.sysconf("SC_CLK_TCK")


def template(size):
    """An event like those of data.py, of about so many bytes, with {n} for its number."""
    event = (
        '{"user_id": "5ef1e60c-7c57-4c0a-9d5a-{n}", "app_version": "2.3.0", "device_type": "android",'
        ' "ip": "192.0.2.17", "locale": "DE", "device_id": "593-47-5928", "session": ""}'
    )
    # The number takes as much as its placeholder and three more.
    return event.removesuffix('"}') + "x" * (size - len(event) - 3) + '"}'


EVENT = template(220)
EVENT_1KB = template(1024)


class Consumed(NamedTuple):
    """What a consumer has done with a queue."""

    seconds: float  # from the first message received to the last deleted
    rate: float  # messages a second meanwhile
    cpu_us: float  # processor time a message, from the start of the process to its end
    stub_cpu_us: float  # … of the SQS server meanwhile
    busy_cores: float  # how many of the machine's were at work, from the start of the process to its last delete
    peak_mb: float  # most resident memory
    curve: list  # of (seconds since the first was received, messages deleted)


# --- consumers ----------------------------------------------------------------------------------------------------


class Consumers:
    """The database's side, and how consumers are called."""

    def __init__(self, cluster, session):
        self.session = session
        password = secrets.token_urlsafe(16)
        # The loader needs the first role only; a consumer that masks by itself writes into the table.
        session.execute(
            f"""DROP ROLE IF EXISTS bench_consumer;
                CREATE ROLE bench_consumer LOGIN PASSWORD '{password}' IN ROLE login_loader;
                GRANT USAGE ON SCHEMA {SCHEMA} TO bench_consumer;
                GRANT SELECT, INSERT ON user_logins TO bench_consumer"""
        )
        self.environment = {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "LANG": "C.UTF-8",
            **CREDENTIALS,
            **cluster.login("bench_consumer", password, SCHEMA),
            "QUEUE": QUEUE,
            "LOADER_QUEUE": QUEUE,
            "LOADER_INBOX": "login_inbox",
            # With a long poll a loader that is told to stop would wait for its calls. While messages wait, so does none.
            "LOADER_WAIT": "0",
        }

    def remove(self):
        self.session.execute("DROP OWNED BY bench_consumer; DROP ROLE bench_consumer")

    def loader(self, *options, pollers=POLLERS, least=None):
        return [programs().loader, "--pollers", str(pollers), "--min-pollers", str(least or pollers), *options]

    def null(self, pollers=POLLERS):
        return self.loader("--null-consumer", pollers=pollers)

    def peer(self, name, *options):
        return [sys.executable, PEERS / f"{name}.py", *options]

    def consume(self, command, count, delay_ms=0, event=EVENT, stores=True):
        """Has a queue of `count` messages consumed, of a server of its own, into empty tables."""
        empty(self.session)
        with Stub(count, event, delay_ms) as stub, self.running(command, stub.url) as process:
            began, busy = time.monotonic(), machine_cpu_seconds()
            curve = watch(process, stub, count)
            busy = (machine_cpu_seconds() - busy) / (time.monotonic() - began)
            done = stub.counters()
            peak_mb = resident_peak(process.pid)
            stub_cpu = cpu_seconds(stub.pid)
            usage = end(process)
        if stores:
            check_rows(self.session, count)
        first, last = done["first_received_us"], done["last_deleted_us"]
        seconds = (last - first) / 1e6
        return Consumed(
            seconds=seconds,
            rate=count / seconds,
            cpu_us=(usage.ru_utime + usage.ru_stime) * 1e6 / count,
            stub_cpu_us=stub_cpu * 1e6 / count,
            busy_cores=busy,
            peak_mb=peak_mb,
            # What came after the last delete was not the consumer's.
            curve=[(0.0, 0), *(((at - first) / 1e6, n) for at, n in curve if at < last and n > 0), (seconds, count)],
        )

    @contextlib.contextmanager
    def running(self, command, endpoint, **more):
        """Runs a consumer, with `more` variables, and ends it whatever happens."""
        with tempfile.TemporaryFile() as log:
            process = subprocess.Popen(
                command,
                env=self.environment | {"AWS_ENDPOINT_URL": endpoint} | more,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                # So that its children can be ended with it.
                start_new_session=True,
            )
            try:
                yield process
            except Stuck as stuck:
                log.seek(0)
                said = log.read().decode(errors="replace").splitlines()[-5:]
                raise RuntimeError("\n".join([f"{Path(command[0]).name} {stuck}", *said])) from None
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                if process.returncode is None:
                    process.wait()


class Stuck(Exception):
    """A consumer has ended, or goes on and deletes nothing."""


def watch(process, stub, count):
    """Waits until all messages are deleted, and says how many were at which microsecond of the server's."""
    curve, changed = [], time.monotonic()
    while True:
        counters = stub.counters()
        deleted = counters["deleted"]
        if not curve or deleted > curve[-1][1]:
            changed = time.monotonic()
        curve.append((counters["now_us"], deleted))
        if deleted >= count:
            return curve
        look_at(process, changed, f"deleted {deleted} of {count}")
        time.sleep(LOOK_EVERY)


def look_at(process, changed, done):
    # Without reaping it: that is what tells its processor time.
    if os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
        raise Stuck(f"has {done} and ended")
    if time.monotonic() - changed > STUCK_AFTER:
        raise Stuck(f"has {done}, none for {STUCK_AFTER} s")


def end(process):
    """Ends a consumer in good order and returns what it took."""
    process.send_signal(signal.SIGTERM)
    timer = threading.Timer(30, process.kill)
    timer.start()
    _, status, usage = os.wait4(process.pid, 0)
    timer.cancel()
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in (0, -signal.SIGTERM):
        raise Stuck(f"has ended with {process.returncode}")
    return usage


def resident_peak(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        for line in status:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    raise RuntimeError("this Linux does not say VmHWM in /proc/PID/status")


def cpu_seconds(pid):
    # Past the name, which may have spaces: utime and stime are the 14th and 15th of all.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def machine_cpu_seconds():
    """Of all processes: without the 4th and 5th, idle and iowait, and without guests, which are in the first two."""
    with open("/proc/stat", encoding="ascii") as stat:
        fields = [int(field) for field in stat.readline().split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / TICKS


@contextlib.contextmanager
def consumers(cluster):
    programs()
    with cluster.logins(SCHEMA) as session:
        made = Consumers(cluster, session)
        yield made
        made.remove()


# --- rates over time ----------------------------------------------------------------------------------------------


def at_count(curve, count):
    """When so many were deleted, between two looks by interpolation."""
    for (before, less), (after, more) in zip(curve, curve[1:]):
        if more >= count:
            return before + (after - before) * (count - less) / (more - less) if more > less else after
    return curve[-1][0]


def steady_rate(curve):
    """The rate without the tenth of messages that comes first, and the one that comes last."""
    total = curve[-1][1]
    return 0.8 * total / (at_count(curve, 0.9 * total) - at_count(curve, 0.1 * total))


def by_time(curve, at):
    for (before, less), (after, more) in zip(curve, curve[1:]):
        if after >= at:
            return less + (more - less) * (at - before) / (after - before) if after > before else more
    return curve[-1][1]


def ramp(curve):
    """Seconds until the rate first reaches nine tenths of what it is in the second half, and that."""
    seconds = curve[-1][0]
    window = min(WINDOW, seconds / 4)

    def rate(at):
        return (by_time(curve, at) - by_time(curve, at - window)) / window

    steps = [window + n * window / 10 for n in range(int((seconds - window) / (window / 10)))]
    # The end, where fewer are left than there are pollers for, is no full rate.
    full = statistics.median(rate(at) for at in steps if seconds / 2 <= at <= seconds - window)
    return next(at for at in steps if rate(at) >= 0.9 * full), full


# --- figures ------------------------------------------------------------------------------------------------------


def vs_null(cluster, sizes):
    count = sizes.messages
    by_rate, by_cpu = [], []
    with consumers(cluster) as made:
        sides = {
            "loader": lambda _: made.consume(made.loader(), count),
            "null": lambda _: made.consume(made.null(), count, stores=False),
        }
        for side in rounds(sizes.rounds, sides):
            loader, null = side["loader"], side["null"]
            by_rate.append({"loader": loader.rate, "null": null.rate, "ratio": loader.rate / null.rate})
            by_cpu.append(
                {
                    "loader_us": loader.cpu_us,
                    "null_us": null.cpu_us,
                    "stub_us": loader.stub_cpu_us,
                    "ratio": loader.cpu_us / null.cpu_us,
                }
            )
            progress(
                f"loader {loader.rate:,.0f}/s, null {null.rate:,.0f}/s, {by_rate[-1]['ratio']:.2f};"
                f" {loader.cpu_us:.1f} and {null.cpu_us:.1f} µs, {by_cpu[-1]['ratio']:.2f}"
            )
    return {
        "loader_vs_null_rate": measured(by_rate, "ratio", messages=count),
        "loader_vs_null_cpu": measured(by_cpu, "ratio", messages=count),
    }


def at_20ms(cluster, sizes):
    count, taken, by_rate = sizes.messages, [], []
    with consumers(cluster) as made:
        sides = {
            "loader": lambda _: made.consume(made.loader(pollers=DELAYED_POLLERS), count, DELAY_MS),
            "null": lambda _: made.consume(made.null(pollers=DELAYED_POLLERS), count, DELAY_MS, stores=False),
        }
        for side in rounds(sizes.rounds, sides):
            done = side["loader"]
            rate, null = steady_rate(done.curve), steady_rate(side["null"].curve)
            by_rate.append({"loader": rate, "null": null, "ratio": rate / null})
            # How many cores were at work for whom: what limits the rate, where it is not the pollers.
            cores = {
                "loader_cores": done.cpu_us * done.rate / 1e6,
                "stub_cores": done.stub_cpu_us * done.rate / 1e6,
                "busy_cores": done.busy_cores,
            }
            taken.append({"rate": rate, "ratio": rate / CEILING, **cores})
            progress(
                f"{rate:,.0f}/s, {rate / CEILING:.2f}, null {null:,.0f}/s; {cores['busy_cores']:.2f} cores at work, of them the loader"
                f" {cores['loader_cores']:.2f} and the SQS server {cores['stub_cores']:.2f}"
            )
    return {
        "rate_at_20ms": measured(taken, "ratio", messages=count, ceiling=CEILING),
        "loader_vs_null_rate_20ms": measured(by_rate, "ratio", messages=count),
    }


def ramp_up(cluster, sizes):
    count, taken = sizes.ramped, []
    with consumers(cluster) as made:
        command = made.loader(pollers=DELAYED_POLLERS, least=1)
        for side in rounds(sizes.rounds, {"loader": lambda _: made.consume(command, count, DELAY_MS)}):
            seconds, full = ramp(side["loader"].curve)
            taken.append({"seconds": seconds, "full_rate": full, "all_seconds": side["loader"].seconds})
            progress(f"{full:,.0f}/s after {seconds:.2f} s of {side['loader'].seconds:.1f}")
    return {"ramp_seconds": measured(taken, "seconds", messages=count)}


def memory(cluster, sizes):
    count, taken = sizes.waiting, []
    with consumers(cluster) as made:
        command = made.loader(pollers=DELAYED_POLLERS)

        def side(delay_ms):
            return lambda _: made.consume(command, count, delay_ms, EVENT_1KB).peak_mb

        for peaks in rounds(sizes.rounds, {"at_0ms": side(0), "at_20ms": side(DELAY_MS)}):
            taken.append(peaks | {"larger": max(peaks.values())})
            progress(f"resident {peaks['at_0ms']:.1f} MB, with {DELAY_MS} ms {peaks['at_20ms']:.1f} MB")
    return {"loader_rss_mb": measured(taken, "larger", messages=count)}


def start(cluster, sizes):
    taken = []
    with consumers(cluster) as made, Stub(0, EVENT) as stub, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("")  # the kernel chooses a name in the abstract namespace
        manager.settimeout(STUCK_AFTER)

        def until_ready(_):
            address = "@" + manager.getsockname()[1:].decode()
            began = time.perf_counter()
            with made.running(made.loader(), stub.url, NOTIFY_SOCKET=address):
                if not manager.recv(4096).startswith(b"READY=1\n"):
                    raise RuntimeError("the loader tells something else before it is ready")
                return {"ms": (time.perf_counter() - began) * 1000}

        # A sample takes no time.
        for side in rounds(3 * sizes.rounds, {"loader": until_ready}):
            taken.append(side["loader"])
    progress(f"ready after {statistics.median(sample['ms'] for sample in taken):.1f} ms")
    return {"loader_start_ms": measured(taken, "ms")}


def vs_python(cluster, sizes):
    vs_naive, vs_best = [], []
    with consumers(cluster) as made:
        sides = {
            "loader": lambda _: made.consume(made.loader(), sizes.messages),
            "naive": lambda _: made.consume(made.peer("naive"), sizes.naive),
            "best": lambda _: made.consume(made.peer("best"), sizes.best),
        }
        for side in rounds(sizes.rounds, sides):
            rates = {name: done.rate for name, done in side.items()}
            vs_naive.append({**rates, "ratio": rates["loader"] / rates["naive"]})
            vs_best.append({**rates, "ratio": rates["loader"] / rates["best"]})
            said = ", ".join(f"{name} {rate:,.0f}/s" for name, rate in rates.items())
            progress(f"{said}, {vs_naive[-1]['ratio']:.0f} and {vs_best[-1]['ratio']:.1f}")
    return {
        "loader_vs_naive_python": measured(vs_naive, "ratio", messages=sizes.naive),
        "loader_vs_best_python": measured(vs_best, "ratio", messages=sizes.best),
    }


def vs_null_ministack(cluster, sizes):
    """Against the SQS server of the demo, which takes so long for a call that it is what is measured."""
    count, taken = sizes.ministack, []
    with consumers(cluster) as made:
        sqs = boto3.client(
            "sqs",
            endpoint_url=cluster.sqs,
            region_name="us-east-1",
            aws_access_key_id="test",
            aws_secret_access_key="test",
        )
        sides = {
            "loader": lambda _: consume_ministack(made, sqs, cluster.sqs, made.loader(), count),
            "null": lambda _: consume_ministack(made, sqs, cluster.sqs, made.null(), count),
        }
        for rates in rounds(MINISTACK_ROUNDS, sides):
            taken.append({**rates, "ratio": rates["loader"] / rates["null"]})
            progress(f"loader {rates['loader']:,.0f}/s, null {rates['null']:,.0f}/s, {taken[-1]['ratio']:.2f}")
    return {"loader_vs_null_rate_ministack": measured(taken, "ratio", messages=count)}


def consume_ministack(made, sqs, endpoint, command, count):
    """The rate of a consumer, from the last look at which all were there to the first at which nothing is."""
    empty(made.session)
    url = sqs.create_queue(QueueName=QUEUE)["QueueUrl"]
    for begin in range(0, count, 10):
        numbers = range(begin, min(begin + 10, count))
        entries = [{"Id": str(n), "MessageBody": EVENT.replace("{n}", str(n))} for n in numbers]
        if failed := sqs.send_message_batch(QueueUrl=url, Entries=entries).get("Failed"):
            raise RuntimeError(f"the SQS server does not take messages: {failed[0]['Code']}")
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    with made.running(command, endpoint) as process:
        left, began = count, time.monotonic()
        changed = began
        while left > 0:
            attributes = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
            visible, hidden = (int(attributes[name]) for name in names)
            now = time.monotonic()
            if visible == count:
                began = now
            if visible + hidden < left:
                left, changed = visible + hidden, now
            look_at(process, changed, f"deleted {count - left} of {count}")
            if left:
                time.sleep(LOOK_EVERY)
        seconds = time.monotonic() - began
        end(process)
    sqs.delete_queue(QueueUrl=url)
    return count / seconds
