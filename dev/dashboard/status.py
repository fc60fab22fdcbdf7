"""A picture of a loader's status page, as Chromium shows it."""

import shutil
import subprocess
import tempfile

SIZE = "900,1440"


def shoot(address, output):
    """Writes the page of the loader at `address` to `output`. Returns whether there is a browser for it."""
    if not shutil.which("chromium"):
        return False
    with tempfile.TemporaryDirectory(prefix="pg_mask-status-") as folder:
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars"]
        options += [f"--user-data-dir={folder}", f"--window-size={SIZE}", f"--screenshot={output}"]
        subprocess.run(
            ["chromium", *options, f"http://{address}/"],
            check=True,
            env={"HOME": folder, "PATH": "/usr/bin:/bin"},
            stderr=subprocess.DEVNULL,
            timeout=120,
        )
    return True
