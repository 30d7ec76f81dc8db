"""The books find out: each way in which a broker may fail its promises is one that they refuse."""

import pytest

from soak.books import Balance, Book


def book(compacted=False, keys=b"abcabc"):
    """Six records, read as they came."""
    book = Book("t", 0, compacted)
    for offset, key in enumerate(keys):
        book.acknowledge(offset, b"%c" % key, b"value %d" % offset)
        book.saw(offset, b"value %d" % offset, lambda: 0)
    return book


def stored(*offsets):
    return {offset: b"value %d" % offset for offset in offsets}


def test_the_two_sides_of_a_log_that_retention_cut():
    followed, now = book().balance(stored(4, 5), 4, 6)
    assert followed == Balance(acknowledged=6, read=6)
    assert now == Balance(acknowledged=6, read=2, removed_by_retention=4)


def test_the_two_sides_of_a_compacted_log():
    followed, now = book(compacted=True).balance(stored(1, 3, 4, 5), 0, 6)
    assert now == Balance(acknowledged=6, read=4, compacted_away=2)
    assert followed == Balance(acknowledged=6, read=6)


def test_a_tombstone_may_go():
    tombstones = book(compacted=True)
    tombstones.acknowledge(6, b"a", None)
    _, now = tombstones.balance(stored(4, 5), 0, 7)
    assert now.compacted_away == 5


@pytest.mark.parametrize("compacted", [False, True])
@pytest.mark.parametrize("log_start, end, content", [
    (0, 6, stored(0, 1, 2, 3, 4)),  # the newest record is gone
    (0, 7, stored(0, 1, 2, 3, 4, 5)),  # a record that nobody wrote
    (0, 5, stored(0, 1, 2, 3, 4)),  # the log was cut
    (2, 6, stored(0, 1, 2, 3, 4, 5)),  # records before the log's start
    (0, 6, stored(0, 1, 2, 3, 4) | {5: b"value 4"}),  # another value
])  # fmt: skip
def test_what_may_not_happen(compacted, log_start, end, content):
    with pytest.raises(AssertionError):
        book(compacted).balance(content, log_start, end)


def test_a_hole_is_none_of_retention():
    with pytest.raises(AssertionError, match="the record at 4 is gone"):
        book().balance(stored(3, 5), 3, 6)


def test_an_offset_is_acknowledged_and_read_once_and_in_order():
    twice = book()
    with pytest.raises(AssertionError, match="acknowledged twice"):
        twice.acknowledge(5, b"c", b"value 5")
    with pytest.raises(AssertionError, match="5 was read after 5"):
        twice.saw(5, b"value 5", lambda: 0)
    with pytest.raises(AssertionError, match="were skipped"):
        twice.saw(8, b"value 8", lambda: 7)
    twice.saw(8, b"value 8", lambda: 8)


def test_what_the_follower_read_must_be_what_was_acknowledged():
    other = book()
    other.acknowledge(6, b"d", b"value 6")
    other.saw(6, b"something else", lambda: 0)
    with pytest.raises(AssertionError, match="another record"):
        other.balance(stored(6), 6, 7)
