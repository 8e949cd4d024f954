"""Files written whole, locked, digested, and quoted in messages."""
