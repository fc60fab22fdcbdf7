"""Runs the shell blocks of pages.

The info string of a block says what it needs:

    sh            the servers of a demo
    sh,compose    the containers of docker-compose.yml
    sh,ignore     something else. It doesn't run.
"""

import os
import re
import signal
import socket
import subprocess
import tempfile
from pathlib import Path

from documents.blocks import blocks_of, infos_of

REPOSITORY = Path(__file__).resolve().parent.parent.parent
KINDS = {"demo": "sh", "compose": "sh,compose"}
LEFT_OUT = "sh,ignore"
SHELL = re.compile(r"(sh|bash|shell|console)\b")
SECONDS = 300
# Precedes the output of a block. bash knows the line.
BEGIN = "printf '\\n@%d\\n' $LINENO"


def run_shell(pages, kind):
    """Runs the shell blocks of a kind, prints which ran, and returns how many pages failed."""
    failed = 0
    for page in pages:
        name = page.relative_to(REPOSITORY)
        infos = [(number, info) for number, info in infos_of(page) if SHELL.match(info)]
        unknown = [(number, info) for number, info in infos if info not in {*KINDS.values(), LEFT_OUT}]
        for number, info in unknown:
            print(f"{name}:{number}: {info} is no kind of block: see dev/documents/shell.py")
        wanted, ignored = (sum(info == fence for _, info in infos) for fence in (KINDS[kind], LEFT_OUT))
        error = run_page(page, kind) if wanted else None
        if infos:
            others = len(infos) - wanted - ignored
            ran = "FAILED" if error else "ran"
            print(f"{name}: {wanted} shell blocks {ran}, {others} of another kind, {ignored} ignored", flush=True)
        if error:
            print(f"{name}:{error}")
        failed += bool(error or unknown)
    return failed


def run_page(page, kind):
    """Runs the blocks of a page in one shell.

    If that fails, it returns the line of the block, and what the block printed.
    """
    lines, _ = blocks_of(page, lambda info: info == KINDS[kind], BEGIN)
    with tempfile.NamedTemporaryFile("w", prefix="docs-", suffix=".sh") as script:
        script.write("\n".join(in_place(line) for line in lines) + "\n")
        script.flush()
        prelude = ". dev/documents/demo.sh; " if kind == "demo" else ""
        command = ["bash", "-euo", "pipefail", "-c", f'{prelude}. "$0"', script.name]
        end, output = finish(command)
    if end is None:
        return None
    before, number, printed = ("\n" + output).rpartition("\n@")
    line, _, printed = printed.partition("\n") if number else ("1", "", before)
    return f"{line}: this block FAILED: {end}\n{printed.replace(script.name, str(page.relative_to(REPOSITORY)))}"


def in_place(line):
    """Lets a line use the demo of these tests, and a free port, so that the tests run beside another demo."""
    line = re.sub(r"(?<![\w/])\.demo/", f"{os.environ.get('DEMO_STATE', '.demo')}/", line)
    return line.replace("127.0.0.1:9187", f"127.0.0.1:{METRICS_PORT}")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


METRICS_PORT = free_port()


def finish(command):
    """Runs a command, and returns how it failed, or None, and its output."""
    # Without a terminal, from which psql would read passwords.
    process = subprocess.Popen(
        command,
        cwd=REPOSITORY,
        # Compose publishes the port.
        env=os.environ | {"METRICS_PORT": str(METRICS_PORT)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=SECONDS)
        return f"exit code {process.returncode}" if process.returncode else None, output
    except subprocess.TimeoutExpired as error:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        return f"no end after {error.timeout} s", output
