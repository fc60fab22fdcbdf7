\echo Use "ALTER EXTENSION pg_mask UPDATE" to load this file. \quit

-- The SQL surface of 0.2.0 is that of 0.1.0.
