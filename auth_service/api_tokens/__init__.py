"""API tokens: long-lived credentials of an account with chosen scopes, and their exchange for access tokens."""
