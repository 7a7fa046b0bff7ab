"""Virtqueues and the balloon device, as the VIRTIO specification lays them out."""
