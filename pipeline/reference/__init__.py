"""The reference of `deploy/docs/reference/`, made from the code: `python -m pipeline.reference` writes it anew.

One file here for one page: settings, commands, metrics, detectors, messages, topics, tables. What a page says of a
thing is written where the thing is: in the comment at its line, in its docstring, in its help. A test holds the pages
equal to what is made here, and another one that nothing is without words.
"""
