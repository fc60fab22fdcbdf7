"""Memory of a backend while many events stream through one COPY."""

import threading

import data
from ingest import check_counts, empty
from sampling import progress

SAMPLES = 5
INTERVAL = 0.05  # seconds


def backend_memory(cluster, sizes):
    taken = []
    with cluster.logins("streamed") as maker:
        query = data.random_events(sizes.stream, data.today(maker))
        file = data.write(maker, cluster.files / "stream.bin", f"SELECT message_id, sent_at, body FROM ({query}) AS e")
        for _ in range(SAMPLES):
            empty(maker)
            # A session of its own each time: memory that a backend has had once it may keep.
            with cluster.connect("streamed") as session:
                session.execute("""INSERT INTO login_inbox (body) VALUES ('{"user_id": "first", "ip": "192.0.2.1"}')""")
                pid = session.info.backend_pid
                baseline = anonymous_memory(pid)
                with Peak(pid) as peak:
                    session.execute(data.copy("login_inbox", file))
                check_counts(session, sizes.stream)
            taken.append(
                {"baseline_mb": baseline, "peak_mb": peak.most, "growth_mb": peak.most - baseline, "looks": peak.looks}
            )
            progress(f"backend memory from {baseline:.1f} to {peak.most:.1f} MB, looked {peak.looks} times")
        file.unlink()
    growth = [one["growth_mb"] for one in taken]
    # Not the median: the bound holds always.
    result = {"value": max(growth), "spread": [min(growth), max(growth)], "samples": taken}
    return {"backend_memory_mb": result}


def anonymous_memory(pid):
    """The memory that is a process's own, in megabytes."""
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        for line in status:
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024 / 1e6
    raise RuntimeError("this Linux does not say RssAnon in /proc/PID/status")


class Peak:
    """Looks at a process's memory again and again as long as the with statement lasts."""

    def __init__(self, pid):
        self.most = anonymous_memory(pid)
        self.looks = 0
        self._pid = pid
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def _look(self):
        while not self._over.wait(INTERVAL):
            self.most = max(self.most, anonymous_memory(self._pid))
            self.looks += 1

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._thread.join()
        self.most = max(self.most, anonymous_memory(self._pid))
