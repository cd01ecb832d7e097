-- The login roles: one that migrates and owns the database, one for each service, and what they may do before any migration grants more.
-- The image runs this once, as the superuser, in the new database. The same as devstack/roles.py.
\set ON_ERROR_STOP on
\getenv migrator MIGRATOR_USER
\getenv migrator_password MIGRATOR_PASSWORD
\getenv auth_service AUTH_SERVICE_USER
\getenv auth_service_password AUTH_SERVICE_PASSWORD
\getenv task_service TASK_SERVICE_USER
\getenv task_service_password TASK_SERVICE_PASSWORD
\getenv database POSTGRES_DB

-- Statements with passwords in them must reach no log, whatever the server's configuration says.
SET log_statement = 'none';
SET log_min_error_statement = 'panic';
SET log_min_duration_statement = -1;

CREATE ROLE :"migrator" LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS PASSWORD :'migrator_password';
CREATE ROLE :"auth_service" LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS PASSWORD :'auth_service_password';
CREATE ROLE :"task_service" LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS PASSWORD :'task_service_password';

ALTER DATABASE :"database" OWNER TO :"migrator";
REVOKE ALL ON DATABASE :"database" FROM PUBLIC;
GRANT CONNECT ON DATABASE :"database" TO :"migrator", :"auth_service", :"task_service";
-- What a login could otherwise reach, if only to make temporary tables there.
REVOKE ALL ON DATABASE postgres, template1 FROM PUBLIC;
