"""The product, small: a broker, an API, its clients and their abuse, all on this machine (`runners/demo.py` runs it).

Nothing of the story is known to the worker: it reads the same topics and the same configuration as in production.
"""
