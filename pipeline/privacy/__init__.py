"""Whose data is erased or cut short, when, and who has looked at it."""
