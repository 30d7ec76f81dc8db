"""Starts brokers and foreign clients; knows nothing about what a test checks."""
