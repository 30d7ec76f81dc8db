"""What `bench_failover.py` measured as a section of benches/RESULTS.md: tables, the goals beside what was seen.

Measures nothing itself. A gap that did not end counts as endless.
"""

import math
import statistics
from dataclasses import dataclass, field

from failover_cpu import BATCH, CONNECTIONS, IN_FLIGHT, PARTITIONS
from figures import percentile
from kafka_table import figures, held

KILL, PAUSE, STOP = "kill -9", "pause", "controlled stop"

KILL_P99_S_MAX, AFTER_SESSION_S_MAX, STOP_S_MAX = 1, 1, 0.15
IDLE_PERCENT_MAX, CPU_RATIO_MAX = 1, 0.25

# What is compared, how it is called, digits.
CPU = "broker_cpu_s_per_gib"
CPU_FIELDS = [
    (CPU, "CPU of the three brokers, s/GiB", 2),
    ("kernel_cpu_s_per_gib", "kernel threads, s/GiB", 2),
    ("mib_per_s", "MiB/s", 0),
    ("memory_mib", "memory of the three behind a run, MiB", 0),
    ("driver_cpu_s_per_gib", "driver's own CPU, s/GiB", 2),
]


@dataclass
class Event:
    """Something that happened to a broker; gaps by partition as `Generator.gaps` has them, moments in seconds."""

    kind: str
    broker: int
    is_controller: bool
    led: set
    since: float
    gaps: dict
    # How long the broker took to stop.
    took_s: float = 0
    # Gaps while it came back, and while it got its leaderships back; none if that was not seen.
    back: dict = field(default_factory=dict)
    given_back: dict = field(default_factory=dict)

    def title(self):
        took = f" ({self.took_s:.1f} s)" if self.kind == STOP else ""
        return f"{self.kind} of broker {self.broker}" + (", the controller's leader" if self.is_controller else "") + took


def length_s(gap):
    begin, end = gap
    return math.inf if begin is None or end is None else end - begin


def lengths_s(gaps, partitions=None):
    return [length_s(gap) for partition, gap in gaps.items() if partitions is None or partition in partitions]


def spread(values):
    """p50 / p99 / max."""
    if not values:
        return "-"
    return " / ".join(f"{value:.3f}" for value in (percentile(values, 0.5), percentile(values, 0.99), max(values)))


def longest(gaps):
    return f"{max(lengths_s(gaps)):.3f}" if gaps else "-"


def accepted_after_s(event, interval_s):
    """Until every partition was acknowledged again; a gap that two writes may leave between them is none."""
    gaps = [gap for gap in event.gaps.values() if length_s(gap) > 2 * interval_s]
    return max((math.inf if gap[1] is None else gap[1] - event.since for gap in gaps), default=0)


def goal(event, session_s):
    led, every = lengths_s(event.gaps, event.led), lengths_s(event.gaps)
    if event.kind == STOP:
        return f"longest <= {STOP_S_MAX} s: {held('<=', max(every), STOP_S_MAX)}"
    limit = KILL_P99_S_MAX if event.kind == KILL else session_s + AFTER_SESSION_S_MAX
    return f"p99 <= {limit:g} s: {held('<=', percentile(led, 0.99), limit) if led else '-'}"


def events_table(undisturbed, events, interval_s, session_s):
    yield (
        "| what happened | led by it | gap of those, s: p50 / p99 / max | gap of all partitions, s: p50 / p99 / max"
        " | all accept again after, s | longest gap while it comes back / gets its leaderships back, s | goal |"
    )
    yield "|---|---|---|---|---|---|---|"
    if undisturbed:
        yield f"| nothing | | | {spread(lengths_s(undisturbed))} | | | |"
    for event in events:
        led, every = spread(lengths_s(event.gaps, event.led)), spread(lengths_s(event.gaps))
        yield (
            f"| {event.title()} | {len(event.led)} | {led} | {every} | {accepted_after_s(event, interval_s):.3f}"
            f" | {longest(event.back)} / {longest(event.given_back)} | {goal(event, session_s)} |"
        )


def idle_table(empty, full, partitions):
    """`empty` and `full` hold (CPU in percent of a core, MiB) of each broker, without and with the topic."""
    yield f"| broker | CPU without the topic, % of a core | with {partitions} replicas | goal | MiB without | MiB with | KiB a replica |"
    yield "|---|---|---|---|---|---|---|"
    for number, ((cpu, memory), (cpu_with, memory_with)) in enumerate(zip(empty, full, strict=True), 1):
        bound = f"<= {IDLE_PERCENT_MAX} %: {held('<=', cpu_with, IDLE_PERCENT_MAX)}"
        share = (memory_with - memory) * 1024 / partitions
        yield f"| {number} | {cpu:.2f} | {cpu_with:.2f} | {bound} | {memory:.0f} | {memory_with:.0f} | {share:.0f} |"


def _cell(reports, of, field_name, digits):
    return figures([report[field_name] for report in reports[of]], digits) if of in reports else ""


def cpu_table(reports):
    """`reports` by (durability, cluster's name). Kafka has one durability, its own."""
    yield "| load | | Tidelog | Kafka | ratio | goal |"
    yield "|---|---|---|---|---|---|"
    kafka = ("os", "Kafka")
    for durability in dict.fromkeys(durability for durability, _ in reports):
        ours = (durability, "Tidelog")
        for name, words, digits in CPU_FIELDS:
            ratio = bound = ""
            if ours in reports and kafka in reports:
                middle = [statistics.median(report[name] for report in reports[of]) for of in (ours, kafka)]
                ratio = f"{middle[0] / middle[1]:.2f}" if middle[1] else ""
                if name == CPU and middle[1]:
                    bound = f"<= {CPU_RATIO_MAX}: {held('<=', middle[0] / middle[1], CPU_RATIO_MAX)}"
            theirs = _cell(reports, kafka, name, digits) + ("" if durability == "os" or kafka not in reports else " (os)")
            yield f"| produce 100 KiB, {durability} | {words} | {_cell(reports, ours, name, digits)} | {theirs} | {ratio} | {bound} |"


def cpu_words(args, rounds):
    return (
        f"{PARTITIONS} partitions of 3 replicas, batches of {BATCH // 1024} KiB, `acks=all`, {CONNECTIONS} connections with {IN_FLIGHT}"
        f" requests in flight on each, closed loop; {args.gib:g} GiB a run, medians of {rounds} rounds, in brackets the least and the"
        f" most. CPU counts until all brokers are quiet and everything is on disk."
    )
