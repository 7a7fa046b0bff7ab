"""The host: what holds a guest's memory, and what faults and discards cost."""
