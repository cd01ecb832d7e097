"""What the tests have in common: clients of the running system, accounts, databases."""
