"""Servers, a loader, some minutes of demo load with trouble in it, and a picture of what Prometheus has seen."""

import argparse
import contextlib
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from demo import Demo
from draw import draw
from prometheus import Prometheus
from status import shoot

REPOSITORY = Path(__file__).resolve().parent.parent.parent
DASHBOARD = REPOSITORY / "deploy/grafana/pg_mask.json"
STATUS = REPOSITORY / "docs/status.png"


def main():
    parser = argparse.ArgumentParser(prog="dev/dashboard/run", description=__doc__)
    parser.add_argument("--output", type=Path, default=DASHBOARD.with_suffix(".png"))
    parser.add_argument("--minutes", type=float, default=5, help="how long the demo goes on")
    arguments = parser.parse_args()
    if not shutil.which("prometheus"):
        sys.exit("dashboard: there is no prometheus (apt-get install --no-install-recommends prometheus)")
    build = ["cargo", "build", "--release", "--locked", "--package", "loader", "--package", "sqs-stub"]
    subprocess.run(build, cwd=REPOSITORY, check=True)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pg_mask-dashboard-")))
        demo = stack.enter_context(Demo(folder / "servers"))
        prometheus = stack.enter_context(Prometheus(folder / "prometheus", demo.addresses))
        began = time.time()
        demo.play(arguments.minutes * 60)
        if not shoot(demo.addresses["loader-1"], STATUS):
            print("dashboard: there is no chromium, so docs/status.png stays as it is")
        # What was seen last is asked for, too.
        time.sleep(2 * prometheus.SCRAPE_EVERY)
        draw(DASHBOARD, prometheus, began, time.time(), arguments.output)
    print(f"dashboard: {arguments.output}, {arguments.output.stat().st_size // 1024} kB")


if __name__ == "__main__":
    main()
