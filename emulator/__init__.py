"""The balloon device, and the laboratory around the two models."""
