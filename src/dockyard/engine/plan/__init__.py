"""Decisions of the engine: plain functions from values to values. No I/O, no clock, no unseeded randomness."""
