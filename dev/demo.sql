-- What `make demo` shows. Ordered, so that the first two queries show the same rows.

\echo
\echo '--- Logins as they are stored: masked.'
SELECT user_id, device_type, masked_ip, masked_device_id, locale, app_version, create_date
FROM user_logins
ORDER BY user_id, masked_ip, app_version
LIMIT 5;

\echo '--- The same rows, unmasked for somebody who can.'
SELECT user_id, unmask_pii(masked_ip) AS ip, unmask_pii(masked_device_id) AS device_id
FROM user_logins
ORDER BY user_id, masked_ip, app_version
LIMIT 5;

\echo '--- Devices that occur more than once, found on masks alone.'
SELECT masked_device_id, count(*) AS logins, count(DISTINCT user_id) AS users
FROM user_logins
GROUP BY masked_device_id
HAVING count(*) > 1
ORDER BY logins DESC, masked_device_id
LIMIT 5;

\echo '--- IP addresses that occur more than once, found on masks alone.'
SELECT masked_ip, count(*) AS logins, count(DISTINCT masked_device_id) AS devices
FROM user_logins
GROUP BY masked_ip
HAVING count(*) > 1
ORDER BY logins DESC, masked_ip
LIMIT 5;

\echo '--- What could not become a login, and why. The events are kept, masked whole.'
SELECT reason, count(*), min(left(masked_body, 40)) || '…' AS for_example
FROM login_rejects
GROUP BY reason
ORDER BY count(*) DESC, reason;
