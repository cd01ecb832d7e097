"""Accounts: who registered, what their users may change, and how they are deleted."""
