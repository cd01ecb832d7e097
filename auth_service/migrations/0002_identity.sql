-- Signing keys, sessions that can be listed and ended, refresh tokens that may be sent twice, and the log that tells the other services of it.

-- The private halves are sealed (AES-GCM) under a key that the database never sees. A key signs from active_from until the next one's.
CREATE TABLE auth.signing_keys (
    id          text PRIMARY KEY,                                          -- the JWK thumbprint
    public_key  bytea       NOT NULL CHECK (octet_length(public_key) = 32),
    sealed_key  bytea       NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    active_from timestamptz NOT NULL UNIQUE
);

ALTER TABLE auth.users ADD COLUMN password_version integer NOT NULL DEFAULT 1;   -- grows with each change of the password, not when it is hashed anew

ALTER TABLE auth.sessions
    ADD COLUMN user_agent text        NOT NULL DEFAULT '',
    ADD COLUMN address    text        NOT NULL DEFAULT '',
    ADD COLUMN expires_at timestamptz NOT NULL DEFAULT now() + interval '30 days',   -- unless it is used before
    ADD COLUMN ends_at    timestamptz NOT NULL DEFAULT now() + interval '90 days';   -- whatever happens
CREATE INDEX sessions_by_expires_at ON auth.sessions (expires_at);
CREATE INDEX sessions_by_ended_at ON auth.sessions (ended_at) WHERE ended_at IS NOT NULL;

-- The successor, sealed under a key derived from this token, which is not here; only for the seconds in which the token may be sent again.
ALTER TABLE auth.refresh_tokens ADD COLUMN sealed_successor bytea;
-- How many came before it in its session: those far behind are dropped.
ALTER TABLE auth.refresh_tokens ADD COLUMN generation integer NOT NULL DEFAULT 0;
CREATE INDEX refresh_tokens_by_generation ON auth.refresh_tokens (session_id, generation);
CREATE INDEX refresh_tokens_sealed ON auth.refresh_tokens (used_at) WHERE sealed_successor IS NOT NULL;

-- From where an account was logged in to: an IPv4 address, or an IPv6 network.
CREATE TABLE auth.login_networks (
    user_id       uuid        NOT NULL REFERENCES auth.users ON DELETE CASCADE,
    network       text        NOT NULL,
    last_login_at timestamptz NOT NULL,
    PRIMARY KEY (user_id, network)
);
CREATE INDEX login_networks_by_time ON auth.login_networks (last_login_at);

-- The numbers of events are given out under this row's lock: they are in the order of the commits, and a reader skips none.
CREATE TABLE auth.event_counter (
    single      boolean PRIMARY KEY DEFAULT true CHECK (single),
    last_number bigint NOT NULL
);
INSERT INTO auth.event_counter (last_number) VALUES (0);

CREATE TABLE auth.events (
    number     bigint PRIMARY KEY,
    kind       smallint    NOT NULL CHECK (kind BETWEEN 1 AND 2),   -- as in event_service.proto: 1 SESSION_REVOKED, 2 USER_DELETED
    user_id    uuid        NOT NULL,
    session_id uuid,
    created_at timestamptz NOT NULL,
    CHECK ((kind = 1) = (session_id IS NOT NULL))
);
CREATE INDEX events_by_kind ON auth.events (kind, number);
CREATE INDEX events_by_created_at ON auth.events (created_at);

-- Everything below locks the user first, then sessions, then the counter of events, which is held until the commit: so call it last.
CREATE FUNCTION auth.log_event(p_kind smallint, p_user uuid, p_session uuid) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_number bigint;
BEGIN
    UPDATE auth.event_counter SET last_number = last_number + 1 RETURNING last_number INTO v_number;
    INSERT INTO auth.events (number, kind, user_id, session_id, created_at) VALUES (v_number, p_kind, p_user, p_session, clock_timestamp());
END $$;

-- Ends those of the sessions that have not ended yet. Returns how many those were.
CREATE FUNCTION auth.end_sessions(p_user uuid, p_sessions uuid[]) RETURNS integer LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_ended uuid[];
BEGIN
    WITH ended AS (
        UPDATE auth.sessions SET ended_at = clock_timestamp()
         WHERE id = ANY (p_sessions) AND user_id = p_user AND ended_at IS NULL
        RETURNING id
    )
    SELECT coalesce(array_agg(id), '{}') INTO v_ended FROM ended;
    PERFORM auth.log_event(1::smallint, p_user, ended) FROM unnest(v_ended) AS ended;
    RETURN cardinality(v_ended);
END $$;

-- The session, as one row; no row if the account is gone or its password is another one than was checked. Of more than p_max_sessions those used
-- least recently end.
CREATE FUNCTION auth.begin_session(
    p_id uuid, p_user uuid, p_password_version integer, p_token_hash bytea, p_user_agent text, p_address text, p_network text,
    p_idle interval, p_lifetime interval, p_max_sessions integer
) RETURNS SETOF auth.sessions LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_now     timestamptz;
    v_surplus uuid[];
    v_session auth.sessions;
BEGIN
    PERFORM FROM auth.users WHERE id = p_user AND password_version = p_password_version FOR UPDATE;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    v_now := clock_timestamp();
    SELECT coalesce(array_agg(id), '{}') INTO v_surplus FROM (
        SELECT id FROM auth.sessions WHERE user_id = p_user AND ended_at IS NULL AND expires_at > v_now
         ORDER BY last_used_at DESC, id DESC OFFSET p_max_sessions - 1
    ) AS surplus;
    INSERT INTO auth.login_networks (user_id, network, last_login_at) VALUES (p_user, p_network, v_now)
    ON CONFLICT (user_id, network) DO UPDATE SET last_login_at = excluded.last_login_at;
    INSERT INTO auth.sessions (id, user_id, created_at, last_used_at, user_agent, address, expires_at, ends_at)
    VALUES (p_id, p_user, v_now, v_now, p_user_agent, p_address, v_now + least(p_idle, p_lifetime), v_now + p_lifetime)
    RETURNING * INTO v_session;
    INSERT INTO auth.refresh_tokens (token_hash, session_id, created_at, expires_at) VALUES (p_token_hash, p_id, v_now, v_session.expires_at);
    PERFORM auth.end_sessions(p_user, v_surplus);
    RETURN NEXT v_session;
END $$;

-- Uses up a refresh token. No row if it is unknown, or its session has ended or expired. Else one, with the outcome: 'rotated', p_new_hash is the next
-- one; 'repeated', it was used within the grace, and o_sealed is the successor of then; 'reused', it was used before that, and the session has ended now.
CREATE FUNCTION auth.use_refresh_token(p_hash bytea, p_new_hash bytea, p_sealed bytea, p_idle interval, p_grace interval)
RETURNS TABLE (o_outcome text, o_session uuid, o_user uuid, o_expires_at timestamptz, o_sealed bytea) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_session auth.sessions;
    v_token   auth.refresh_tokens;
    v_now     timestamptz;
BEGIN
    -- The family goes one at a time: what is read of the token is read after this lock.
    SELECT session.* INTO v_session
      FROM auth.refresh_tokens AS token JOIN auth.sessions AS session ON session.id = token.session_id
     WHERE token.token_hash = p_hash FOR UPDATE OF session;
    v_now := clock_timestamp();
    IF v_session.id IS NULL OR v_session.ended_at IS NOT NULL OR v_session.expires_at <= v_now THEN
        RETURN;
    END IF;
    SELECT * INTO v_token FROM auth.refresh_tokens WHERE token_hash = p_hash;
    IF v_token.used_at IS NULL THEN
        o_outcome := 'rotated';
        v_session.expires_at := least(v_now + p_idle, v_session.ends_at);
        UPDATE auth.refresh_tokens SET used_at = v_now, sealed_successor = p_sealed WHERE token_hash = p_hash;
        UPDATE auth.sessions SET last_used_at = v_now, expires_at = v_session.expires_at WHERE id = v_session.id;
        INSERT INTO auth.refresh_tokens (token_hash, session_id, created_at, expires_at, generation)
        VALUES (p_new_hash, v_session.id, v_now, v_session.expires_at, v_token.generation + 1);
        -- More than a session that is refreshed each quarter of an hour has in its life; without a bound one client could fill the table.
        DELETE FROM auth.refresh_tokens WHERE session_id = v_session.id AND generation <= v_token.generation - 10000;
    ELSIF v_token.used_at > v_now - p_grace AND v_token.sealed_successor IS NOT NULL THEN
        o_outcome := 'repeated';
        o_sealed := v_token.sealed_successor;
    ELSE
        o_outcome := 'reused';
        PERFORM auth.end_sessions(v_session.user_id, ARRAY[v_session.id]);
    END IF;
    o_session := v_session.id;
    o_user := v_session.user_id;
    o_expires_at := v_session.expires_at;
    RETURN NEXT;
END $$;

-- Ends the session that a refresh token belongs to, used or not. The session, as one row; no row if there was none to end.
CREATE FUNCTION auth.end_session_of(p_hash bytea) RETURNS TABLE (o_session uuid, o_user uuid) LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    SELECT session.id, session.user_id INTO o_session, o_user
      FROM auth.refresh_tokens AS token JOIN auth.sessions AS session ON session.id = token.session_id
     WHERE token.token_hash = p_hash;
    IF FOUND AND auth.end_sessions(o_user, ARRAY[o_session]) = 1 THEN
        RETURN NEXT;
    END IF;
END $$;

-- Sets another password and ends all sessions but one. False if the account is gone or its password is another one than was checked.
CREATE FUNCTION auth.change_password(p_user uuid, p_password_version integer, p_hash text, p_session uuid) RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    UPDATE auth.users SET password_hash = p_hash, password_version = password_version + 1, updated_at = greatest(clock_timestamp(), updated_at)
     WHERE id = p_user AND password_version = p_password_version;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM auth.end_sessions(p_user, ARRAY(SELECT id FROM auth.sessions WHERE user_id = p_user AND ended_at IS NULL AND id <> p_session));
    RETURN true;
END $$;

-- Deletes the account with all that hangs on it. False if it is gone or its password is another one than was checked.
CREATE FUNCTION auth.delete_user(p_user uuid, p_password_version integer) RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    DELETE FROM auth.users WHERE id = p_user AND password_version = p_password_version;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM auth.log_event(2::smallint, p_user, NULL);
    RETURN true;
END $$;
