"""Lib: tiny helpers that know nothing of containers: times as Docker writes them, fault points for crash tests."""
