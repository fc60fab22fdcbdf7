//! TIDs: where rows are in a table.

use pgrx::pg_sys;

/// Names a row by its TID.
pub(super) fn row_of(place: pg_sys::ItemPointerData, relation: &str) -> String {
    let block = u32::from(place.ip_blkid.bi_hi) << 16 | u32::from(place.ip_blkid.bi_lo);
    format!("row ({block},{}) of {relation}", place.ip_posid)
}

pub(super) fn datum(place: &pg_sys::ItemPointerData) -> pg_sys::Datum {
    pg_sys::Datum::from(std::ptr::from_ref(place))
}

/// Returns the TIDs that enclose the rows of these blocks.
pub(super) fn bounds(first: u64, end: u64) -> [pg_sys::ItemPointerData; 2] {
    [first, end].map(|block| {
        // No table has more blocks than 32 bits can number.
        let block = u32::try_from(block).unwrap_or(u32::MAX - 1);
        let [a, b, c, d] = block.to_be_bytes();
        let (bi_hi, bi_lo) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        pg_sys::ItemPointerData { ip_blkid: pg_sys::BlockIdData { bi_hi, bi_lo }, ip_posid: 0 }
    })
}
