"""Measuring this machine: what touches, discards and signals cost, as a cost profile."""
