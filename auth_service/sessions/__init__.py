"""Sessions: login, refresh tokens, access tokens, logout and revocation."""
