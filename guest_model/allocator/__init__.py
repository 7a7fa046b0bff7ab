"""The page allocator of a Linux guest."""
