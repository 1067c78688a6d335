"""A policy is checked before it is used; what `keywatch policy` prints."""
