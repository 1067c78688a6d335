-- Who may do what. Run by an administrator, with the passwords as parameters:
--   clickhouse-client --param_writer=... --param_reader=... --param_console=... --param_privacy=... --multiquery < users.sql
-- The worker and responder only add rows (and migrate); people and Grafana only read, within limits.
CREATE DATABASE IF NOT EXISTS keywatch;

CREATE ROLE IF NOT EXISTS keywatch_write;
GRANT SELECT, INSERT, CREATE TABLE, CREATE VIEW, ALTER TABLE, OPTIMIZE ON keywatch.* TO keywatch_write;
GRANT CREATE DATABASE ON keywatch.* TO keywatch_write;
-- A view is made anew when its table gets a column; there is nothing in it to lose.
GRANT DROP VIEW ON keywatch.v_* TO keywatch_write;
GRANT DROP VIEW ON keywatch_shadow_*.* TO keywatch_write;
GRANT SELECT ON system.tables TO keywatch_write;
GRANT SELECT ON system.columns TO keywatch_write;
-- Which days have been written to since they were counted: the views to_days and to_place_days ask with the writer's rights.
GRANT SELECT ON system.parts TO keywatch_write;
GRANT SELECT ON system.view_refreshes TO keywatch_write;
-- Whether the database is Replicated (`migrate`), and how its replicas are (`doctor`).
GRANT SELECT ON system.databases TO keywatch_write;
GRANT SELECT ON system.replicas TO keywatch_write;
GRANT SELECT ON system.clusters TO keywatch_write;
-- `keywatch worker --shadow NAME` has a database of its own, of the same tables; nobody acts on what is in it.
GRANT CREATE DATABASE, SELECT, INSERT, CREATE TABLE, CREATE VIEW, ALTER TABLE, OPTIMIZE ON keywatch_shadow_*.* TO keywatch_write;
-- The audit log: rows are added, never changed.
REVOKE ALTER TABLE ON keywatch.responses FROM keywatch_write;
REVOKE ALTER TABLE ON keywatch.console_log FROM keywatch_write;

CREATE ROLE IF NOT EXISTS keywatch_read;
GRANT SELECT ON keywatch.* TO keywatch_read;
GRANT SELECT ON keywatch_shadow_*.* TO keywatch_read;

-- The console reads, and writes down who read what.
CREATE ROLE IF NOT EXISTS keywatch_watch;
GRANT SELECT ON keywatch.* TO keywatch_watch;
GRANT INSERT ON keywatch.console_log TO keywatch_watch;

-- `keywatch erase` and `keywatch privacy truncate` rewrite rows of what was measured, never the two audits. Nobody has
-- this role until you give it to whom may erase.
CREATE ROLE IF NOT EXISTS keywatch_erase;
GRANT SELECT, ALTER DELETE, ALTER UPDATE ON keywatch.* TO keywatch_erase;
GRANT SELECT ON system.view_refreshes TO keywatch_erase;
REVOKE ALTER DELETE, ALTER UPDATE ON keywatch.responses FROM keywatch_erase;
REVOKE ALTER DELETE, ALTER UPDATE ON keywatch.console_log FROM keywatch_erase;

-- `keywatch privacy truncate`, daily: cuts callers' addresses that are old, and sees and changes nothing else.
CREATE ROLE IF NOT EXISTS keywatch_truncate;
GRANT SELECT(client_ip, ts), ALTER UPDATE(client_ip) ON keywatch.requests TO keywatch_truncate;
GRANT SELECT(client_ip, ts), ALTER UPDATE(client_ip) ON keywatch.evidence TO keywatch_truncate;
GRANT SELECT(client_ip, last_used), ALTER UPDATE(client_ip) ON keywatch.keys_last_used TO keywatch_truncate;
GRANT SELECT(sample, at), ALTER UPDATE(sample) ON keywatch.findings TO keywatch_truncate;
GRANT SELECT(body, last_at), ALTER UPDATE(body) ON keywatch.incidents TO keywatch_truncate;
GRANT SELECT(body, at), ALTER UPDATE(body) ON keywatch.controls TO keywatch_truncate;

-- What stays changeable is what clients set with every query: Grafana's data source the one, `keywatch keys` the other.
CREATE SETTINGS PROFILE IF NOT EXISTS keywatch_reader
SETTINGS
    readonly = 1,
    max_execution_time = 30 CHANGEABLE_IN_READONLY,
    max_memory_usage = 4000000000,
    max_rows_to_read = 2000000000,
    do_not_merge_across_partitions_select_final = 1 CHANGEABLE_IN_READONLY
TO keywatch_read;

-- One query of the console or of the worker must not take the server along; both set their own time-outs besides.
CREATE SETTINGS PROFILE IF NOT EXISTS keywatch_watch
SETTINGS max_execution_time = 30, max_memory_usage = 4000000000, max_rows_to_read = 2000000000
TO keywatch_watch;
CREATE SETTINGS PROFILE IF NOT EXISTS keywatch_write
SETTINGS max_memory_usage = 8000000000, throw_on_max_partitions_per_insert_block = 0
TO keywatch_write;

CREATE SETTINGS PROFILE IF NOT EXISTS keywatch_truncate SETTINGS max_memory_usage = 4000000000 TO keywatch_truncate;

CREATE QUOTA IF NOT EXISTS keywatch_watch KEYED BY user_name FOR INTERVAL 1 hour MAX queries = 100000 TO keywatch_watch;
CREATE QUOTA IF NOT EXISTS keywatch_reader KEYED BY user_name FOR INTERVAL 1 hour MAX queries = 20000 TO keywatch_read;

CREATE USER IF NOT EXISTS keywatch_writer IDENTIFIED BY {writer:String};
GRANT keywatch_write TO keywatch_writer;

CREATE USER IF NOT EXISTS keywatch_console IDENTIFIED BY {console:String};
GRANT keywatch_watch TO keywatch_console;

CREATE USER IF NOT EXISTS keywatch_reader IDENTIFIED BY {reader:String};
GRANT keywatch_read TO keywatch_reader;

CREATE USER IF NOT EXISTS keywatch_privacy IDENTIFIED BY {privacy:String};
GRANT keywatch_truncate TO keywatch_privacy;
