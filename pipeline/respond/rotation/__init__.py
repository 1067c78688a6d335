"""Rotated keys: revoked once their traffic has moved, and deleted where a gateway only disables."""
