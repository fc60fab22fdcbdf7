-- Needs a superuser, as every extension in C does.
CREATE EXTENSION IF NOT EXISTS pg_mask;
