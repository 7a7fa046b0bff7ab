"""Reporting policies: which free blocks are handed to the host, when, and in which batches."""
