"""Reads events, judges them, writes what follows; `flow.py` shows the way of an event on one screen."""
