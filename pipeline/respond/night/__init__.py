"""What is told without an incident's message: cases, blindness, drills; and what people do about it."""
