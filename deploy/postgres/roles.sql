-- Creates the login roles: the migration role, which owns the database, and one role for each service, as devstack/roles.py does for `make run`. The
-- postgres image runs this once, as the superuser, when its volume is new. To change a password later, use ALTER ROLE.

\set ON_ERROR_STOP on
\getenv migrator_password MIGRATOR_PASSWORD
\getenv auth_service_password AUTH_SERVICE_PASSWORD
\getenv task_service_password TASK_SERVICE_PASSWORD

-- Statements that contain passwords must not be logged, whatever the server's configuration is.
SET log_statement = 'none';
SET log_min_error_statement = 'panic';
SET log_min_duration_statement = -1;

CREATE ROLE migrator LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS PASSWORD :'migrator_password';
CREATE ROLE auth_service LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS PASSWORD :'auth_service_password';
CREATE ROLE task_service LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS PASSWORD :'task_service_password';

-- DATABASE_TIMEOUT_SECONDS of the services, for their connections through PgBouncer, which cannot set it themselves.
ALTER ROLE auth_service SET statement_timeout = '5s';
ALTER ROLE auth_service SET idle_in_transaction_session_timeout = '5s';
ALTER ROLE task_service SET statement_timeout = '5s';
ALTER ROLE task_service SET idle_in_transaction_session_timeout = '5s';

ALTER DATABASE taskmanager OWNER TO migrator;
REVOKE ALL ON DATABASE taskmanager FROM PUBLIC;
GRANT CONNECT ON DATABASE taskmanager TO migrator, auth_service, task_service;
-- By default every login role can connect to these databases and create temporary tables there.
REVOKE ALL ON DATABASE postgres, template1 FROM PUBLIC;
