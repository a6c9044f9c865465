"""Layers that run over slots: state apart from weights, one row a session."""
