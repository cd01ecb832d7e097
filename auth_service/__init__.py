"""Accounts, login, sessions and keys."""
