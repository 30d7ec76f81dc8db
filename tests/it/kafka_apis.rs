//! `docs/KAFKA_APIS.md` against the table that the broker advertises.

use std::fs;
use std::path::Path;

use tidelog_protocol::api::SERVED;

/// Key, name and versions of each row of the document's first table.
fn documented() -> Vec<(i16, String, String)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/KAFKA_APIS.md");
    let text = fs::read_to_string(path).expect("the document exists");
    text.lines()
        .filter_map(|line| {
            let mut cells = line.split('|').map(str::trim).skip(1);
            let key = cells.next()?.parse().ok()?;
            Some((key, cells.next()?.to_owned(), cells.next()?.to_owned()))
        })
        .collect()
}

#[test]
fn the_document_lists_what_is_served() {
    let served: Vec<_> = SERVED
        .iter()
        .map(|range| {
            let versions = if range.min == range.max {
                range.min.to_string()
            } else {
                format!("{}-{}", range.min, range.max)
            };
            (range.key as i16, format!("{:?}", range.key), versions)
        })
        .collect();
    assert_eq!(documented(), served);
}
