"""A described VM, run in virtual time: clock, wiring of guest, device and host, results."""
