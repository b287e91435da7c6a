"""Decisions of the engine: plain functions from values to values. No I/O, no clock of their own, no randomness unseeded."""
