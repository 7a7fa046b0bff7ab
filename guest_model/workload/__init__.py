"""Workloads: what the tasks of a guest do, as streams of operations that C executes."""
