"""A responder process for the tests. KW_CONFIG is a JSON of `pipeline.config.tree.Config`, secrets included."""

from __future__ import annotations

import os
import sys

import msgspec

from pipeline.config.tree import Config, Secret
from pipeline.log import set_up
from pipeline.respond.responder import main


def config_from(text: str) -> Config:
    """The configuration; `Secret` is a plain string in JSON."""
    return msgspec.convert(msgspec.json.decode(text), Config, dec_hook=_secret)


def _secret(kind: type, value: object) -> object:
    if kind is Secret:
        return Secret(str(value))
    raise NotImplementedError(kind)


if __name__ == "__main__":
    set_up("INFO")
    sys.exit(main(config_from(os.environ["KW_CONFIG"])))
