"""A file's life. Each verb's file holds its HTTP half and its background half.

upload (multipart → spool → fanout, targets), read, delete, expire; mappings and references serve the chat.
"""
