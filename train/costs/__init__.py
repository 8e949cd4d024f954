"""What a program costs: its memory, its work, its communication, its time."""
