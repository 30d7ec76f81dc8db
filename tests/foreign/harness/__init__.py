"""Starts brokers and foreign clients; knows nothing about what a test checks, but for the books of a load in `cluster`."""
