"""Sockets only: each transport is a shell round a pump."""
