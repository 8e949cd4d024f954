"""The experiments: plain values, one file each, all from configs/common.py."""
