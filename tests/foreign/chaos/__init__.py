"""Three broker processes that are killed, stopped, cut off and filled up while clients use them. See test_chaos.py."""
