"""Replicas that are made after the upload, from the bytes that are kept."""
