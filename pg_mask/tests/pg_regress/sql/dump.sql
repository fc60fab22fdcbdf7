-- A dump of a database with inboxes and masked rows, restored, is the same database, and nothing is masked twice.
INSERT INTO login_inbox VALUES (id(1), '2026-03-01', '{"user_id":"u1","ip":"10.0.0.1"}'), (id(2), '2026-03-01', 'bad');
CREATE DATABASE restored TEMPLATE template0;
\! pg_dump -Fc -f $PG_ABS_BUILDDIR/results/regression.dump regression && pg_restore --exit-on-error -d restored $PG_ABS_BUILDDIR/results/regression.dump && echo restored
\! pg_dump regression | grep -v -e '^\\\(un\)\?restrict' > $PG_ABS_BUILDDIR/results/first.sql; pg_dump restored | grep -v -e '^\\\(un\)\?restrict' > $PG_ABS_BUILDDIR/results/second.sql; cmp $PG_ABS_BUILDDIR/results/first.sql $PG_ABS_BUILDDIR/results/second.sql && echo same
\! grep -c -e '10\.0\.0\.1' $PG_ABS_BUILDDIR/results/first.sql
\c restored
SELECT unmask_pii(masked_ip) FROM user_logins;
SELECT unmask_pii(masked_body) FROM login_rejects;
SET ROLE login_loader;
INSERT INTO login_inbox VALUES (id(1), '2026-03-01', '{"user_id":"u1","ip":"10.0.0.1"}'), (id(3), '2026-03-01', '{"user_id":"u3"}'), (id(2), '2026-03-01', 'bad');
SELECT stored, duplicate, rejected FROM inbox_counts();
RESET ROLE;
\c regression
DROP DATABASE restored;
TRUNCATE user_logins, login_rejects;
