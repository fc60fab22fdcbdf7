"""The SQS server that the loader is measured with: dev/sqs-stub, which takes little of the machine itself."""

import contextlib
import http.client
import json
import os
import shutil
import subprocess
import sys
from typing import NamedTuple
from urllib.parse import urlsplit

from cluster import REPOSITORY
from sampling import progress

QUEUE = "bench"
TARGET = REPOSITORY / "target"
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_REGION": "us-east-1",
    "AWS_DEFAULT_REGION": "us-east-1",  # botocore knows no other
    # A profile of the user's could name another endpoint.
    "AWS_CONFIG_FILE": "/dev/null",
    "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
}


class Programs(NamedTuple):
    stub: str
    loader: str  # with --null-consumer


_programs = None


def programs():
    """Builds both, once a run."""
    global _programs
    if _programs is None:
        _programs = Programs(build_stub(), build_loader())
    return _programs


def build_stub():
    progress("building the SQS server dev/sqs-stub (a minute the first time)")
    cargo("--package", "sqs-stub")
    return TARGET / "release/sqs-stub"


def build_loader():
    """Not left where the ordinary loader is: it must not be mistaken for that."""
    progress("building the loader with its null consumer (4 minutes the first time)")
    ours, ordinary = TARGET / "bench/loader", TARGET / "release/loader"
    ours.parent.mkdir(exist_ok=True)
    kept = ours.with_name("loader.ordinary")
    kept.unlink(missing_ok=True)
    with contextlib.suppress(FileNotFoundError):
        os.link(ordinary, kept)
    try:
        cargo("--package", "loader", "--features", "null-consumer")
        fresh = ours.with_name("loader.new")
        shutil.copy2(ordinary, fresh)
        fresh.replace(ours)
        ordinary.unlink()
    finally:
        if kept.exists():
            kept.replace(ordinary)
            # Where both are links to one file, replace() has done nothing.
            kept.unlink(missing_ok=True)
    return ours


def cargo(*what):
    command = ["cargo", "build", "--release", "--locked", *what]
    try:
        subprocess.run(command, cwd=REPOSITORY, check=True, stdout=sys.stderr)
    except (OSError, subprocess.CalledProcessError) as error:
        raise RuntimeError(f"{' '.join(command)} failed: {error}") from None


class Stub:
    """A server with a queue of `count` messages, as long as the with statement lasts."""

    def __init__(self, count, template, delay_ms=0):
        self._process = subprocess.Popen(
            [programs().stub, "--port", "0", "--delay-ms", str(delay_ms), "--until-stdin-closes"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            self.url = self._process.stdout.readline().strip()
            if not self.url:
                raise RuntimeError("dev/sqs-stub did not start")
            self.pid = self._process.pid
            self._connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=60)
            self._call("fill", {"queue": QUEUE, "count": count, "template": template})
        except BaseException:
            self.__exit__()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.kill()
        self._process.communicate()

    def counters(self):
        return self._call("counters")

    def _call(self, command, body=None):
        method = "GET" if body is None else "POST"
        self._connection.request(method, f"/_stub/{command}", json.dumps(body) if body else None)
        answer = self._connection.getresponse()
        text = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"dev/sqs-stub answers {answer.status} to {command}: {text[:200]!r}")
        return json.loads(text)
