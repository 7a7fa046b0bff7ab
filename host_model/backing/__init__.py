"""Backings of guest memory: one file each, one interface."""
