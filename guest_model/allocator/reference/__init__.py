"""A slow, obvious allocator with the behaviour of the C one: what that one is tested against."""

from guest_model.allocator.reference.allocator import ReferenceAllocator

__all__ = ["ReferenceAllocator"]
