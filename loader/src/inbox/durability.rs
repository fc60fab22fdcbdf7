//! Settings of the server under which a committed transaction can be lost, after its messages were deleted.

use tokio_postgres::Error;

use super::catalog::Catalog;
use crate::check_item::CheckItem;

/// Item: a crash of the operating system or of the machine.
const FSYNC: &str = "database.fsync";
/// Item: a failover.
const STANDBYS: &str = "database.standbys";

/// Reads the settings and the number of standbys. Connections for base backups and logical replication don't count. A
/// role without `pg_monitor` sees the rows of `pg_stat_replication`, but no column except the process id.
const SETTINGS: &str = "
    SELECT array_remove(ARRAY[
               CASE WHEN current_setting('fsync') = 'off' THEN 'fsync' END,
               CASE WHEN current_setting('full_page_writes') = 'off' THEN 'full_page_writes' END
           ], NULL),
           current_setting('synchronous_standby_names') <> '',
           (SELECT count(*) FROM pg_stat_replication r
            WHERE r.state IS DISTINCT FROM 'backup'
              AND NOT EXISTS (SELECT FROM pg_replication_slots s WHERE s.active_pid = r.pid AND s.slot_type = 'logical'))";

/// Checks whether a committed transaction survives a crash and a failover.
pub(super) async fn check(catalog: &Catalog<'_>) -> Result<[CheckItem; 2], Error> {
    let row = catalog.query_one(SETTINGS, &[]).await?;
    let off: Vec<String> = row.try_get(0)?;
    Ok([fsync(&off), standbys(row.try_get(1)?, row.try_get(2)?)])
}

fn fsync(off: &[String]) -> CheckItem {
    if off.is_empty() {
        return CheckItem::ok(FSYNC, "fsync and full_page_writes are on: what is committed survives a crash");
    }
    let settings: Vec<_> = off.iter().map(|setting| format!("{setting} = on")).collect();
    CheckItem::warning(
        FSYNC,
        format!(
            "{} off: a crash of the machine can lose committed events whose messages are deleted. Set {} in postgresql.conf",
            if let [one] = off { format!("{one} is") } else { format!("{} are", off.join(" and ")) },
            settings.join(" and ")
        ),
    )
}

fn standbys(is_synchronous: bool, count: i64) -> CheckItem {
    match (is_synchronous, count) {
        (true, _) => CheckItem::ok(STANDBYS, "COMMIT waits for the standbys in synchronous_standby_names"),
        (false, 0) => CheckItem::ok(STANDBYS, "there is no standby to fail over to"),
        (false, _) => {
            let standbys =
                if count == 1 { "1 standby streams".into() } else { format!("{count} standbys stream") };
            CheckItem::warning(
                STANDBYS,
                format!(
                    "{standbys} from this server, and none is synchronous: a failover can lose committed events whose \
                     messages are deleted. Set synchronous_standby_names"
                ),
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check_item::Status;

    #[test]
    fn settings_that_are_off_are_named_with_the_remedy() {
        assert_eq!(fsync(&[]).status, Status::Ok);
        let one = fsync(&["fsync".into()]);
        assert_eq!(one.status, Status::Warning);
        assert!(one.message.starts_with("fsync is off") && one.message.contains("Set fsync = on in"));
        let both = fsync(&["fsync".into(), "full_page_writes".into()]).message;
        assert!(both.starts_with("fsync and full_page_writes are off"), "{both}");
        assert!(both.contains("Set fsync = on and full_page_writes = on in"), "{both}");
    }

    #[test]
    fn standbys_without_a_synchronous_one_give_a_warning() {
        assert_eq!([(true, 0), (true, 2), (false, 0)].map(|(s, n)| standbys(s, n).status), [Status::Ok; 3]);
        let one = standbys(false, 1);
        assert_eq!(one.status, Status::Warning);
        assert!(one.message.starts_with("1 standby streams from this server, and none"), "{}", one.message);
        assert!(standbys(false, 2).message.starts_with("2 standbys stream from"));
    }
}
