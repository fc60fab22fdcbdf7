-- A trigger of a target inserts into another inbox, and catches its error. What failed there is not taken for what fails here.
SET client_min_messages = error;
CREATE FUNCTION locked(t text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN IF t = 'bad' THEN RAISE lock_not_available; END IF; RETURN true; END $$;
CREATE DOMAIN guarded AS text CHECK (public.locked(VALUE));
CREATE TABLE inner_rows (c1 text, c2 text, c3 guarded, id uuid UNIQUE);
CREATE TABLE inner_rejects (LIKE login_rejects INCLUDING ALL);
SELECT attach_inbox('inner_inbox', 'inner_rows', 'inner_rejects', '{"c1": {"copy": "a"}, "c2": {"copy": "a"}, "c3": {"copy": "a"}, "id": "message_id"}');
CREATE TABLE outer_rows (a text CHECK (a <> 'no'), id uuid UNIQUE);
CREATE TABLE outer_rejects (LIKE login_rejects INCLUDING ALL);
CREATE FUNCTION pass_on() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    BEGIN
        INSERT INTO public.inner_inbox (body) VALUES ('{"a": "bad"}');
    EXCEPTION WHEN OTHERS THEN NULL;
    END;
    RETURN NEW;
END $$;
CREATE TRIGGER pass_on BEFORE INSERT ON outer_rows FOR EACH ROW EXECUTE FUNCTION pass_on();
SELECT attach_inbox('outer_inbox', 'outer_rows', 'outer_rejects', '{"a": {"copy": "a"}, "id": "message_id"}');
RESET client_min_messages;
INSERT INTO outer_inbox (message_id, body) VALUES (id(1), '{"a": "no"}'), (id(2), '{"a": "yes"}');
SELECT reason FROM outer_rejects;
SELECT a FROM outer_rows;
DROP TRIGGER pass_on ON outer_rows;
-- An error whose SQLSTATE only the trigger's author knows, out of the other inbox: the statement's, as it is there.
CREATE OR REPLACE FUNCTION pass_on() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.inner_inbox (message_id, body) VALUES (NEW.id, '{"a": "new"}'); RETURN NULL; END $$;
CREATE TRIGGER pass_on AFTER INSERT ON outer_rows FOR EACH ROW EXECUTE FUNCTION pass_on();
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'expired' USING ERRCODE = 'ZZ001'; END $$;
CREATE TRIGGER refuse AFTER INSERT ON inner_rows FOR EACH ROW EXECUTE FUNCTION refuse();
SELECT error_of('INSERT INTO inner_inbox (message_id, body) VALUES (id(3), ''{"a": "new"}'')');
SELECT error_of('INSERT INTO outer_inbox (message_id, body) VALUES (id(3), ''{"a": "1"}''), (id(4), ''{"a": "2"}'')');
SELECT count(*) FROM outer_rejects WHERE message_id IN (id(3), id(4));
SET client_min_messages = error;
DROP TABLE outer_rows, outer_rejects, inner_rows, inner_rejects CASCADE;
DROP FUNCTION pass_on, refuse;
DROP DOMAIN guarded;
DROP FUNCTION locked;
