"""The books find out: each way in which a cluster may fail its promises is one that they refuse."""

import pytest

from chaos.books import UNKNOWN, Committed, Ledger, check, parse, value


def ledgers(*, acknowledged=(0, 1, 2, 3), sent=4):
    """Two producers that took turns; of the first some were acknowledged, of the second all."""
    one, two = Ledger("one", 1), Ledger("two", 1)
    for sequence in range(sent):
        for ledger in (one, two):
            assert ledger.take(0) == (sequence, value(ledger.producer, 0, sequence))
        if sequence in acknowledged:
            one.acknowledge(0, sequence, 2 * sequence)
        two.acknowledge(0, sequence, 2 * sequence + 1)
    return {"one": one, "two": two}


def stored(sequence="0123"):
    """The partition in which they stand in turn, the first producer's in this order."""
    pairs = ((value("one", 0, int(which)), value("two", 0, place)) for place, which in enumerate(sequence))
    return list(enumerate(data for pair in pairs for data in pair))


def problems(found, of=None):
    return check(0, of or ledgers(), found)[1]


def test_what_is_as_it_was_promised():
    balance, found = check(0, ledgers(), stored())
    assert found == []
    assert (balance.acknowledged, balance.unknown_there, balance.unknown_gone) == (8, 0, 0)


def test_a_value_is_known_by_its_bytes():
    assert parse(value("a", 3, 77)) == ("a", 3, 77)
    assert parse(value("a", 3, 77)[:-1]) is None
    assert parse(b"a 3 77 ") is None
    assert parse(None) is None
    assert parse(b"") is None
    assert parse(b"a b c ") is None


def test_what_was_not_acknowledged_may_be_there_or_not():
    some = ledgers(acknowledged=(0, 1))
    balance, found = check(0, some, stored())
    assert found == [] and (balance.unknown_there, balance.unknown_gone) == (2, 0)
    without = [data for _, data in stored() if not data.startswith((b"one 0 2 ", b"one 0 3 "))]
    for of, offset in ((2, 4), (3, 5)):
        some["two"].offsets[0][of] = offset
    balance, found = check(0, some, list(enumerate(without)))
    assert found == [] and (balance.unknown_there, balance.unknown_gone) == (0, 2)


def test_a_lost_record():
    assert "1 lost: two 3, acknowledged at 7" in problems(stored()[:-1])[0]


def test_a_record_where_it_was_not_promised():
    found = problems(stored("0132"))
    assert any("elsewhere" in text for text in found)


def test_a_record_that_is_there_twice():
    assert any("duplicated: one 3 at 6 and 8" in text for text in problems([*stored(), (8, value("one", 0, 3))]))


def test_records_of_unknown_fate_are_there_once_and_in_order():
    assert any("reordered: one 2 at 6, after 3" in text for text in problems(stored("0132"), ledgers(acknowledged=(0, 1))))
    assert any("duplicated" in text for text in problems(stored("0133"), ledgers(acknowledged=(0, 1))))


def test_a_gap():
    found = stored()
    assert any("gaps: 8 comes after 6" in text for text in problems([*found[:-1], (8, found[-1][1])]))
    assert any("gaps: 1 comes after -1" in text for text in problems(found[1:]))


@pytest.mark.parametrize("data", [b"something", value("three", 0, 0), value("one", 1, 0), value("one", 0, 4), value("one", 0, 3)[:-1]])
def test_a_record_that_nobody_sent(data):
    assert any("that nobody sent" in text for text in problems([*stored(), (8, data)]))


def test_a_record_is_acknowledged_once():
    ledger = ledgers()["one"]
    with pytest.raises(AssertionError, match="acknowledged twice"):
        ledger.acknowledge(0, 2, 9)
    with pytest.raises(AssertionError, match="without an offset"):
        ledgers(acknowledged=())["one"].acknowledge(0, 2, UNKNOWN)


def test_what_a_group_has_committed_never_goes_back():
    committed = Committed()

    def ask(term, offset, floor=None):
        committed.saw("group 0", term, offset, committed.floor("group 0", term) if floor is None else floor, "broker 1")

    ask(1, UNKNOWN)
    ask(1, 10)
    ask(2, 10)
    ask(2, 20)
    # One who does not know yet that another took over.
    ask(1, 10)
    with pytest.raises(AssertionError, match="was committed up to 10, and then up to 9"):
        ask(1, 9)
    with pytest.raises(AssertionError, match="was committed up to 20, and then up to 19"):
        ask(3, 19)
    # Who was asked before may answer late.
    floor = committed.floor("group 0", 2)
    ask(2, 30)
    ask(2, 20, floor)
    assert committed.floor("group 0", 2) == 30
    assert committed.floor("group 1", 2) == UNKNOWN
