-- One service's schema and its two users; for MySQL 8 and MariaDB 10.11.
--
-- `make run DB=mysql` runs this by itself, once a service. To do the same elsewhere, as a user
-- who may make users, with passwords that hold no quotes or backslashes:
--
--   service=ingest client_host=% password=… migration_password=… envsubst < accounts.sql | mysql
--
-- It may be run again, and then sets the passwords anew.

CREATE DATABASE IF NOT EXISTS `${service}` CHARACTER SET utf8mb4;

-- The service itself. What it may do with the rows of which table, its migrations say.
CREATE USER IF NOT EXISTS '${service}'@'${client_host}';
ALTER USER '${service}'@'${client_host}' IDENTIFIED BY '${password}';

-- Its migrations: they change tables, and rows where a change asks for it.
CREATE USER IF NOT EXISTS '${service}_migration'@'${client_host}';
ALTER USER '${service}_migration'@'${client_host}' IDENTIFIED BY '${migration_password}';
GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, DROP, INDEX, REFERENCES
  ON `${service}`.* TO '${service}_migration'@'${client_host}' WITH GRANT OPTION;
