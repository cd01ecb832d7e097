"""Passwords: hashing, the rules for new ones, and the limits on guesses."""
