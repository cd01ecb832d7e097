-- API tokens, of which only hashes are kept. An access token for one has its id as `sid`, so its end is an event as that of a session.

CREATE TABLE auth.api_tokens (
    id           uuid PRIMARY KEY,
    user_id      uuid        NOT NULL REFERENCES auth.users ON DELETE CASCADE,
    token_hash   bytea       NOT NULL UNIQUE CHECK (octet_length(token_hash) = 32),
    name         text        NOT NULL,
    scopes       text[]      NOT NULL CHECK (cardinality(scopes) > 0),
    hint         text        NOT NULL,
    created_at   timestamptz NOT NULL,
    last_used_at timestamptz,
    expires_at   timestamptz NOT NULL
);
CREATE INDEX api_tokens_by_user ON auth.api_tokens (user_id);
CREATE INDEX api_tokens_by_expires_at ON auth.api_tokens (expires_at);

-- As the other functions, these lock the user first and the counter of events last.

-- Creates an API token. o_outcome: 'created'; 'limit', the user has p_limit tokens that have not expired; 'ended', the session p_session has ended or
-- expired, or its account is gone: a thief of a session must not gain a token in the 2 s in which replicas still accept it.
CREATE FUNCTION auth.create_api_token(
    p_id uuid, p_user uuid, p_session uuid, p_name text, p_scopes text[], p_hash bytea, p_hint text, p_expires_at timestamptz, p_lifetime interval,
    p_limit integer, OUT o_outcome text, OUT o_token auth.api_tokens
) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_now timestamptz;
BEGIN
    PERFORM FROM auth.users WHERE id = p_user FOR UPDATE;
    v_now := clock_timestamp();
    PERFORM FROM auth.sessions WHERE id = p_session AND user_id = p_user AND ended_at IS NULL AND expires_at > v_now FOR SHARE;
    IF NOT FOUND THEN
        o_outcome := 'ended';
        RETURN;
    END IF;
    IF (SELECT count(*) FROM auth.api_tokens WHERE user_id = p_user AND expires_at > v_now) >= p_limit THEN
        o_outcome := 'limit';
        RETURN;
    END IF;
    o_outcome := 'created';
    INSERT INTO auth.api_tokens (id, user_id, token_hash, name, scopes, hint, created_at, expires_at)
    VALUES (p_id, p_user, p_hash, p_name, p_scopes, p_hint, v_now, coalesce(p_expires_at, v_now + p_lifetime))
    RETURNING * INTO o_token;
END $$;

-- Deletes those of the API tokens that the user has. Returns how many those were.
CREATE FUNCTION auth.delete_api_tokens(p_user uuid, p_tokens uuid[]) RETURNS integer LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_deleted uuid[];
BEGIN
    WITH deleted AS (
        DELETE FROM auth.api_tokens WHERE id = ANY (p_tokens) AND user_id = p_user RETURNING id
    )
    SELECT coalesce(array_agg(id), '{}') INTO v_deleted FROM deleted;
    PERFORM auth.log_event(1::smallint, p_user, deleted) FROM unnest(v_deleted) AS deleted;
    RETURN cardinality(v_deleted);
END $$;

-- As change_password with four parameters. If p_revoke_api_tokens, it also deletes the user's API tokens.
CREATE FUNCTION auth.change_password(
    p_user uuid, p_password_version integer, p_hash text, p_session uuid, p_revoke_api_tokens boolean
) RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF NOT auth.change_password(p_user, p_password_version, p_hash, p_session) THEN
        RETURN false;
    END IF;
    IF p_revoke_api_tokens THEN
        PERFORM auth.delete_api_tokens(p_user, ARRAY(SELECT id FROM auth.api_tokens WHERE user_id = p_user));
    END IF;
    RETURN true;
END $$;
