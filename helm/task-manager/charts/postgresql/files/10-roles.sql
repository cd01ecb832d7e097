-- Creates the database, if it is missing, and the login roles: the migration role, which owns the database, and one role for each program. Sets their
-- rights before the first migration. devstack/roles.py creates the same roles.
--
-- The image of PostgreSQL runs this once, as the superuser. On another PostgreSQL, run it with psql as a superuser or as a role with CREATEROLE and
-- CREATEDB, as the administrators of managed databases are (docs/operations.md#install). It can run again: it leaves existing roles as they are.
--
-- It reads MIGRATOR_PASSWORD, AUTH_SERVICE_PASSWORD, TASK_SERVICE_PASSWORD and TASK_WORKER_PASSWORD, and, if they are set, MIGRATOR_USER (migrator),
-- AUTH_SERVICE_USER (auth_service), TASK_SERVICE_USER (task_service), TASK_WORKER_USER (task_worker) and POSTGRES_DB (taskmanager).
\set ON_ERROR_STOP on
\set migrator migrator
\set auth_service auth_service
\set task_service task_service
\set task_worker task_worker
\set database taskmanager
\getenv migrator MIGRATOR_USER
\getenv migrator_password MIGRATOR_PASSWORD
\getenv auth_service AUTH_SERVICE_USER
\getenv auth_service_password AUTH_SERVICE_PASSWORD
\getenv task_service TASK_SERVICE_USER
\getenv task_service_password TASK_SERVICE_PASSWORD
\getenv task_worker TASK_WORKER_USER
\getenv task_worker_password TASK_WORKER_PASSWORD
\getenv database POSTGRES_DB
\if :{?migrator_password}
\else
  DO 'BEGIN RAISE EXCEPTION USING MESSAGE = ''MIGRATOR_PASSWORD is not set''; END';
\endif
\if :{?auth_service_password}
\else
  DO 'BEGIN RAISE EXCEPTION USING MESSAGE = ''AUTH_SERVICE_PASSWORD is not set''; END';
\endif
\if :{?task_service_password}
\else
  DO 'BEGIN RAISE EXCEPTION USING MESSAGE = ''TASK_SERVICE_PASSWORD is not set''; END';
\endif
\if :{?task_worker_password}
\else
  DO 'BEGIN RAISE EXCEPTION USING MESSAGE = ''TASK_WORKER_PASSWORD is not set''; END';
\endif

-- Statements that contain passwords must not be logged, whatever the server's configuration is. Only a superuser may set this.
SELECT rolsuper AS superuser FROM pg_roles WHERE rolname = current_user \gset
\if :superuser
  SET log_statement = 'none';
  SET log_min_error_statement = 'panic';
  SET log_min_duration_statement = -1;
\else
  SELECT current_setting('log_statement') <> 'none' AS logged \gset
  \if :logged
    \warn 'log_statement is on: the log of the server will contain the passwords of the roles'
  \endif
\endif

-- Each query returns a statement if its object is missing, and \gexec runs that statement.
SELECT format('CREATE ROLE %I LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS PASSWORD %L', name, password)
  FROM (VALUES (:'migrator', :'migrator_password'), (:'auth_service', :'auth_service_password'), (:'task_service', :'task_service_password'),
               (:'task_worker', :'task_worker_password'))
       AS given (name, password)
 WHERE name NOT IN (SELECT rolname FROM pg_roles) \gexec
-- The locale C.UTF-8 of the builtin provider sorts the same on every system and in every version.
SELECT format('CREATE DATABASE %I TEMPLATE template0 ENCODING UTF8 LOCALE_PROVIDER builtin BUILTIN_LOCALE %L LOCALE %L', :'database', 'C.UTF-8', 'C')
 WHERE :'database' NOT IN (SELECT datname FROM pg_database) \gexec

-- DATABASE_TIMEOUT_SECONDS of the programs, for their connections through PgBouncer, which cannot set it themselves.
ALTER ROLE :"auth_service" SET statement_timeout = '5s';
ALTER ROLE :"auth_service" SET idle_in_transaction_session_timeout = '5s';
ALTER ROLE :"task_service" SET statement_timeout = '5s';
ALTER ROLE :"task_service" SET idle_in_transaction_session_timeout = '5s';
ALTER ROLE :"task_worker" SET statement_timeout = '5s';
ALTER ROLE :"task_worker" SET idle_in_transaction_session_timeout = '5s';

-- Only a member of the migration role may make it the owner, and only a member of the owner may change the rights. A superuser needs no membership.
\if :superuser
\else
  GRANT :"migrator" TO CURRENT_USER;
\endif
SELECT datdba <> :'migrator'::regrole AS foreign_owner FROM pg_database WHERE datname = :'database' \gset
\if :foreign_owner
  ALTER DATABASE :"database" OWNER TO :"migrator";
\endif
REVOKE ALL ON DATABASE :"database" FROM PUBLIC;
GRANT CONNECT ON DATABASE :"database" TO :"migrator", :"auth_service", :"task_service", :"task_worker";
\if :superuser
\else
  REVOKE :"migrator" FROM CURRENT_USER;
\endif

-- By default every login role can connect to these databases and create temporary tables there. On a managed PostgreSQL they belong to its operator.
SELECT format('REVOKE ALL ON DATABASE %I FROM PUBLIC', datname)
  FROM pg_database WHERE datname IN ('postgres', 'template1') AND pg_has_role(datdba, 'USAGE') \gexec
