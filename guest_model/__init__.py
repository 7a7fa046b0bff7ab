"""The guest: a Linux page allocator, reporting policies, the balloon driver, workloads."""
