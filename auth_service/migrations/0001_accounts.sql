-- Accounts, their sessions, and the refresh tokens of a session, of which only hashes are kept.

CREATE TABLE auth.users (
    id            uuid PRIMARY KEY,
    email         text        NOT NULL,
    email_key     text        NOT NULL,   -- the email as it is matched: normalised once, in Python
    name          text        NOT NULL,
    password_hash text        NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT now(),
    updated_at    timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT users_email_key UNIQUE (email_key)
);

CREATE TABLE auth.sessions (
    id           uuid PRIMARY KEY,
    user_id      uuid        NOT NULL REFERENCES auth.users ON DELETE CASCADE,
    created_at   timestamptz NOT NULL DEFAULT now(),
    last_used_at timestamptz NOT NULL DEFAULT now(),
    ended_at     timestamptz
);

CREATE INDEX sessions_by_user ON auth.sessions (user_id);

CREATE TABLE auth.refresh_tokens (
    token_hash bytea PRIMARY KEY,
    session_id uuid        NOT NULL REFERENCES auth.sessions ON DELETE CASCADE,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    used_at    timestamptz
);

CREATE INDEX refresh_tokens_by_session ON auth.refresh_tokens (session_id);
