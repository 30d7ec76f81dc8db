"""Everything at once for a while: what a broker must keep, and must not grow by, in a day. See test_day.py."""
