"""What `bench_kafka.py` measured as a section of benches/RESULTS.md: the machine, then one line a figure.

A line holds both brokers' figures, their ratio, and whether the bound holds, where there is one. Measures nothing itself.
"""

import os
import re
import statistics
import subprocess
import time
from pathlib import Path

from harness import paths

OS_SMALL, READ, FOREIGN = "produce 16 KiB, os", "consume", "foreign generator, 16 KiB, os"
SYNC_SMALL, LONE = "produce 16 KiB, sync", "one record of 1 KiB at a time, sync"

CPU, KERNEL, SPEED, MEMORY = "broker_cpu_s_per_gib", "kernel_cpu_s_per_gib", "mib_per_s", "memory_mib"
FIELDS = [(CPU, "broker CPU, s/GiB", 2), (KERNEL, "kernel threads, s/GiB", 2), (SPEED, "MiB/s", 0)]
LATENCIES = [("p50", "ms, median", 2), ("p99", "ms, 99 of 100", 2)]

# (load, field): least or greatest ratio to Kafka's figure, of another load where one is named.
BOUNDS = {
    (OS_SMALL, CPU): ("<=", 1 / 2, None),
    (SYNC_SMALL, CPU): ("<=", 2 / 3, OS_SMALL),
    (SYNC_SMALL, SPEED): (">=", 5, None),
    (READ, CPU): ("<=", 1.5, None),
}
START_S_MAX, IDLE_MB_MAX, DRIVER_S_MAX = 0.5, 60, 1.2


def value(report, field):
    return report["latency_ms"][field] if field in ("p50", "p99") else report[field]


def held(symbol, figure, limit):
    is_held = figure <= limit if symbol == "<=" else figure >= limit
    return "held" if is_held else "**missed**"


def figures(values, digits):
    """Their median, with the least and the most."""
    middle = f"{statistics.median(values):.{digits}f}"
    return f"{middle} ({min(values):.{digits}f}-{max(values):.{digits}f})" if len(values) > 1 else middle


def line(reports, load, field, words, digits):
    ours, theirs = ([value(report, field) for report in reports[load, name]] for name in ("Tidelog", "Kafka"))
    symbol, limit, other = BOUNDS.get((load, field), (None, None, None))
    against = [value(report, field) for report in reports[other, "Kafka"]] if other else theirs
    base = statistics.median(against)
    ratio = statistics.median(ours) / base if base else None
    shown = "" if ratio is None else f"{ratio:.2f}" + (" of Kafka's os" if other else "")
    bound = f"{symbol} {limit:.2g}: {held(symbol, ratio, limit)}" if symbol and ratio is not None else ""
    return f"| {load} | {words} | {figures(ours, digits)} | {figures(theirs, digits)} | {shown} | {bound} |"


def table(reports, starts):
    """Lines of a table; `reports` by (load, broker name), `starts` has times and idle memory by broker name."""
    yield "| load | | Tidelog | Kafka | ratio | bound |"
    yield "|---|---|---|---|---|---|"
    for load in dict.fromkeys(load for load, _ in reports):
        is_paced = load == LONE or reports[load, "Tidelog"][0].get("batches_per_s_intended")
        for field, words, digits in LATENCIES if is_paced else FIELDS:
            yield line(reports, load, field, words, digits)
    (our_times, our_memory), (their_times, their_memory) = starts["Tidelog"], starts["Kafka"]
    bound = f"<= {START_S_MAX} s: {held('<=', statistics.median(our_times), START_S_MAX)}"
    yield f"| start to first acknowledged record | s | {figures(our_times, 2)} | {figures(their_times, 2)} | | {bound} |"
    ours, theirs = (memory * (1 << 20) / 1e6 for memory in (our_memory, their_memory))
    bound = f"<= {IDLE_MB_MAX} MB: {held('<=', ours, IDLE_MB_MAX)}"
    yield f"| memory, idle | MB | {ours:.1f} | {theirs:.1f} | | {bound} |"
    most = (max(r[MEMORY] for (_, owner), rs in reports.items() if owner == name for r in rs) for name in ("Tidelog", "Kafka"))
    yield "| memory behind a run, at most | MiB | {:.0f} | {:.0f} | | |".format(*most)
    for load in (OS_SMALL, READ):
        own = [max(r["driver"]["cpu_s_per_gib"] for r in reports[load, name]) for name in ("Tidelog", "Kafka")]
        bound = f"<= {DRIVER_S_MAX}: {held('<=', max(own), DRIVER_S_MAX)}"
        yield f"| {load} | driver's own CPU, s/GiB, at most | {own[0]:.2f} | {own[1]:.2f} | | {bound} |"


def _output(*command):
    done = subprocess.run(command, capture_output=True, text=True)
    return (done.stdout + done.stderr).strip()


def machine(folder, driver):
    """One sentence about what was measured, and where."""
    commit = _output("git", "-C", str(paths.REPO), "describe", "--always", "--dirty")
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    kafka = next((jar.stem.split("-")[-1] for jar in (paths.CACHE / "java" / "server").glob("kafka_*.jar")), "unknown")
    java = re.search(r'version "([^"]*)"', _output("java", "-version"))
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    return (
        f"`make bench-kafka`, {time.strftime('%Y-%m-%d')}, commit {commit} ({_output(str(driver), '--version')}), Apache Kafka {kafka} on"
        f" Java {java[1] if java else 'unknown'}; {os.cpu_count()} cores ({model[1] if model else os.uname().machine}), {memory_gib:.0f} GiB,"
        f" {_output('df', '--output=fstype', folder).split()[-1]}, Linux {os.uname().release.split('-')[0]}."
    )
