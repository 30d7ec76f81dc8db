"""What processes and the kernel spend, read from /proc, and one run of the load driver. Knows nothing of brokers.

A broker is here whatever has an `address` for clients, a `log_tail`, and a `process`, or, being a cluster, the `pids` of several.
"""

import json
import os
import subprocess
import threading
import time
from pathlib import Path

GIB = 1 << 30
_TICKS = os.sysconf("SC_CLK_TCK")
_KTHREADD = 2

# A process is quiet when it used less than this in a second; both brokers use 0.01-0.02 s when nobody asks anything of them.
QUIET_S = 0.05
QUIET_WAIT_S = 60

# Kernel threads that end take their CPU along, so they are looked at this often: each loses no more than that.
SAMPLE_S = 0.5


def _stat(pid):
    """Fields of /proc/PID/stat behind the name: state, parent, ... or nothing when the process is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def cpu_s(pid):
    """Processor seconds that a process has used so far."""
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) / _TICKS


def kernel_threads():
    """Processor seconds of each kernel thread so far: write-back, journal of the file system, block layer."""
    threads = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _stat(entry.name)) and int(fields[1]) == _KTHREADD:
            threads[entry.name, fields[19]] = (int(fields[11]) + int(fields[12])) / _TICKS
    return threads


class KernelWatch:
    """What kernel threads use from now on, those included that end meanwhile."""

    def __init__(self):
        self._before = kernel_threads()
        self._seen = dict(self._before)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def _sample(self):
        while not self._over.wait(SAMPLE_S):
            self._seen.update(kernel_threads())

    def end(self):
        """Processor seconds, all kernel threads together."""
        self._over.set()
        self._thread.join()
        self._seen.update(kernel_threads())
        return sum(used - self._before.get(thread, 0) for thread, used in self._seen.items())


def others_cpu_s(pids):
    """Processor seconds that the machine spent on anything but these processes, so far: how quiet it is."""
    fields = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
    user, nice, system, _, _, irq, softirq = fields[:7]
    return (user + nice + system + irq + softirq) / _TICKS - _all_cpu_s(pids)


def memory_mib(pid, field="VmRSS"):
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) / 1024
    return None


def dirty_limit_gib():
    """How much unwritten data the kernel takes before writers have to wait."""
    for line in Path("/proc/vmstat").read_text().splitlines():
        if line.startswith("nr_dirty_threshold "):
            return int(line.split()[1]) * os.sysconf("SC_PAGE_SIZE") / GIB
    return None


def processes(broker):
    """Ids of all its processes."""
    return getattr(broker, "pids", None) or [broker.process.pid]


def _all_cpu_s(pids):
    return sum(cpu_s(pid) for pid in pids)


def wait_until_quiet(pids):
    """Waits for what a broker does behind its answers; says whether it came to an end."""
    deadline = time.monotonic() + QUIET_WAIT_S
    while time.monotonic() < deadline:
        before = _all_cpu_s(pids)
        time.sleep(1)
        if _all_cpu_s(pids) - before < QUIET_S * len(pids):
            return True
    return False


def drive(driver, broker, what, topic, **options):
    """One run of the load driver; its report, and what broker and kernel spent until all was written to disk."""
    os.sync()
    command = [str(driver), "bench", "raw", what, "--json", "--bootstrap-server", broker.address, "--topic", topic]
    for name, value in options.items():
        for one in value if isinstance(value, list) else [value]:
            command += ["--" + name.replace("_", "-"), str(one)]

    def load():
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr}\n{broker.log_tail()}")
        return json.loads(done.stdout)

    return around(broker, load)


def around(broker, work):
    """The report that `work` returns (`bytes` in it), with what was spent meanwhile and until all is on disk."""
    pids, me = processes(broker), os.getpid()
    before, others = _all_cpu_s(pids), others_cpu_s([*pids, me])
    kernel = KernelWatch()
    report = work()
    report["was_quiet"] = wait_until_quiet(pids)
    os.sync()
    gib = report["bytes"] / GIB
    report["broker_cpu_s_per_gib"] = (_all_cpu_s(pids) - before) / gib
    kernel_s = kernel.end()
    report["kernel_cpu_s_per_gib"] = kernel_s / gib
    own = report["driver"]["user_s"] + report["driver"]["system_s"] if "driver" in report else 0
    report["others_cpu_s"] = max(others_cpu_s([*pids, me]) - others - own - kernel_s, 0)
    return report
