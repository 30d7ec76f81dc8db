"""Fixtures that all suites share: brokers, topics, groups, wire connections."""

import itertools
import os
import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
pytest.register_assert_rewrite("harness.cluster")

from harness.broker import new_broker  # noqa: E402
from harness.topics import Topics  # noqa: E402
from wire import Connection  # noqa: E402
from wire.calls import find_coordinator  # noqa: E402

_numbers = itertools.count()


def pytest_report_header():
    return f"broker under test: {os.environ.get('TIDELOG_TEST_BROKER', 'tidelog')}"


@pytest.fixture(scope="session")
def start_broker(tmp_path_factory):
    """Starts brokers with settings of their own. What still runs at the end is stopped and its log checked.

    The returned function takes `overrides`, `listeners` and `expected_log`: patterns of WARN and ERROR lines that
    the tests provoke. Anything else on those levels fails the session: somebody would have to look at it.
    """
    started = []

    def start(overrides=None, listeners=None, expected_log=()):
        broker = new_broker(tmp_path_factory.mktemp("broker"), overrides, listeners)
        started.append((broker, expected_log))
        return broker.start()

    yield start

    problems = []
    for broker, expected_log in started:
        try:
            if broker.process.poll() is None:
                broker.stop()
        except RuntimeError as error:
            problems.append(str(error))
        if lines := broker.complaints(expected_log):
            problems.append("\n  ".join([f"unexpected in {broker.log_path}:", *lines[:40]]))
        broker.discard()
    if kept := os.environ.get("TIDELOG_TEST_LOGS"):
        for number, (broker, _) in enumerate(started):
            shutil.copy(broker.log_path, Path(kept) / f"broker-{number}.log")
    if problems:
        pytest.fail("\n".join(problems), pytrace=False)


@pytest.fixture(scope="session")
def broker(start_broker):
    """The broker that tests share: defaults, no state that one test could spoil for another.

    Its group coordinator is up: librdkafka 2.16 crashes when an administrative group request has to be retried.
    It does not look for records past their retention: those that tests date back to 1970 would go under their eyes.
    """
    broker = start_broker({"log.retention.check.interval.ms": 86_400_000})
    with Connection(broker.address) as connection:
        find_coordinator(connection, "warm-up")
    return broker


@pytest.fixture
def name(request):
    """A name nobody else uses, for topics and groups: tests share their broker."""
    stem = "".join(c if c.isalnum() else "-" for c in request.node.name).strip("-")[:80]
    return f"{stem}-{next(_numbers)}"


@pytest.fixture(scope="session")
def topics(broker):
    """Creates topics on the shared broker: `topics.create(name, partitions=1, **configs)`."""
    with Topics(broker.address) as creator:
        yield creator


@pytest.fixture
def topic(topics, name):
    """A fresh topic with one partition."""
    return topics.create(name)


@pytest.fixture
def wire(broker):
    """A raw connection to the shared broker."""
    with Connection(broker.address) as connection:
        yield connection
