"""What runs mean: comparison with what really happened, and where they first differ."""
