-- The login roles of the database, as devstack/roles.py makes them for `make run`: one that migrates and owns it, one for each service. Run by the
-- postgres image once, as the superuser in the database, when its volume is new. A password that is changed later is changed by ALTER ROLE.

\set ON_ERROR_STOP on
\getenv migrator_password MIGRATOR_PASSWORD
\getenv auth_service_password AUTH_SERVICE_PASSWORD
\getenv task_service_password TASK_SERVICE_PASSWORD

-- Statements with passwords in them must reach no log, whatever the server's configuration says.
SET log_statement = 'none';
SET log_min_error_statement = 'panic';
SET log_min_duration_statement = -1;

CREATE ROLE migrator LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS PASSWORD :'migrator_password';
CREATE ROLE auth_service LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS PASSWORD :'auth_service_password';
CREATE ROLE task_service LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS PASSWORD :'task_service_password';

ALTER DATABASE taskmanager OWNER TO migrator;
REVOKE ALL ON DATABASE taskmanager FROM PUBLIC;
GRANT CONNECT ON DATABASE taskmanager TO migrator, auth_service, task_service;
-- What a login could otherwise reach, if only to make temporary tables there.
REVOKE ALL ON DATABASE postgres, template1 FROM PUBLIC;
