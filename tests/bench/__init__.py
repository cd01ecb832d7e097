"""Tests of the benchmark's arithmetic and programs. They measure nothing."""
