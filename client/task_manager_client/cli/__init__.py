"""The command `tm`: parses the command line, calls the client, and prints tables for people or JSON for programs."""
