"""Approvers' keys: made once, never overwritten, readable by their owner alone; what is no key is said in words."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import ConfigError
from pipeline.respond import approval
from tests.pipeline.respond.people import ANN


def test_a_made_key_signs_what_its_public_half_confirms(tmp_path: Path) -> None:
    file = tmp_path / "carl"
    carl = approval.make("carl", file)
    assert file.stat().st_mode & 0o777 == 0o600
    assert approval.public_half(file) == carl.public_key
    word = approval.sign("act-1", True, "carl", file)
    assert approval.is_genuine(word, (ANN.approver, carl))
    assert not approval.is_genuine(word, (ANN.approver,))
    assert carl.public_key not in file.read_text()


def test_a_key_is_never_overwritten_and_what_is_none_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "carl"
    approval.make("carl", file)
    with pytest.raises(ConfigError, match="never overwritten"):
        approval.make("carl", file)
    for content in ("", "nonsense", "QUJD"):
        file.write_text(content)
        with pytest.raises(ConfigError, match="holds no approver's key"):
            approval.public_half(file)
    with pytest.raises(ConfigError, match="No such file"):
        approval.public_half(tmp_path / "nobody")
