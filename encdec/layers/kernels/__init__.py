"""Implementations of attention behind one signature, and the choice of one."""
