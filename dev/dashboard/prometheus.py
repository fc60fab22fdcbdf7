"""A Prometheus of one's own, which scrapes the loaders of the demo."""

import json
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request


class Prometheus:
    """Scrapes `targets`, given by instance name, as long as the with statement lasts."""

    SCRAPE_EVERY = 2  # seconds

    def __init__(self, folder, targets):
        folder.mkdir()
        static = [{"targets": [address], "labels": {"instance": name}} for name, address in targets.items()]
        # JSON is YAML.
        config = {
            "global": {"scrape_interval": f"{self.SCRAPE_EVERY}s"},
            "scrape_configs": [{"job_name": "pg_mask_loader", "static_configs": static}],
        }
        (folder / "prometheus.yml").write_text(json.dumps(config))
        port = free_port()
        self._url = f"http://127.0.0.1:{port}"
        self._log = (folder / "log").open("w")
        self._process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={folder}/prometheus.yml",
                f"--storage.tsdb.path={folder}/data",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )

    def __enter__(self):
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(f"{self._url}/-/ready", timeout=5):
                    return self
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.2)
        self.__exit__()
        raise RuntimeError("prometheus did not start")

    def __exit__(self, *_):
        self._process.terminate()
        self._process.wait()
        self._log.close()

    def range(self, expression, begin, end, step):
        """The series that a query gives: (labels, [(time, value)])."""
        query = {"query": expression, "start": begin, "end": end, "step": step}
        return [
            (series["metric"], [(at, float(value)) for at, value in series["values"]])
            for series in self._ask("query_range", query)
        ]

    def values(self, label):
        """The values that a label has, with its series or without."""
        return self._ask(f"label/{label}/values", {})

    def _ask(self, what, query):
        url = f"{self._url}/api/v1/{what}?{urllib.parse.urlencode(query)}"
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:
                data = json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise RuntimeError(f"Prometheus refuses {query}: {error.read().decode()}") from None
        return data["result"] if isinstance(data, dict) else data


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
