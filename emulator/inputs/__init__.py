"""Recordings of real guests, traces and state samples, read into arrays and op streams."""
