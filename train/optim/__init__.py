"""The update: optimizers by name, their schedules, and what they train."""
