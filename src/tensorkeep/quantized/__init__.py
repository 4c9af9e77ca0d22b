"""Quantized numbers: blocks of few bits with scales of their own, and integers that stand for real numbers."""
