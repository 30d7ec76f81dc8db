//! The damage matrix: every kind of file, damaged in every way, after both kinds of stop and while running.
//!
//! The table is that of `docs/DISK_FORMAT.md`, line by line. Each cell is what came of it: what still works, what is
//! refused and by whom, and that nothing damaged was handed out as good.

mod cells;
mod image;

use std::path::{Path, PathBuf};

use super::*;
use cells::{at_start, while_running};
use image::{Image, Images};

/// What is done to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Damage {
    /// The second half goes.
    Cut,
    /// Everything from a byte on goes.
    CutTo(u64),
    /// One bit, at a byte.
    Flip(u64),
    Emptied,
    Deleted,
}

impl Damage {
    fn word(self) -> &'static str {
        match self {
            Damage::Cut | Damage::CutTo(_) => "truncated",
            Damage::Flip(_) => "bit flipped",
            Damage::Emptied => "emptied",
            Damage::Deleted => "deleted",
        }
    }

    fn inflict(self, fs: &HostileFs, path: &Path) {
        let file = fs.open(path, crate::fs::OpenMode::Write).expect("is there");
        let bytes = file.len().expect("known");
        match self {
            Damage::Cut => file.set_len(bytes / 2).expect("is cut"),
            Damage::CutTo(bytes) => file.set_len(bytes).expect("is cut"),
            Damage::Flip(at) => {
                assert!(at < bytes, "{} has {bytes} bytes", path.display());
                fs.flip_bit(path, at, 3).expect("is flipped");
            }
            Damage::Emptied => file.set_len(0).expect("is cut"),
            Damage::Deleted => fs.remove_file(path).expect("is removed"),
        }
    }
}

/// Which file of an image.
#[derive(Clone, Copy, Debug)]
enum Victim {
    /// The journal file with the newest frames of partition 0.
    Journal,
    /// A side file of the journal.
    Aside,
    /// Of the partition, the first or last file with this suffix.
    First(i32, &'static str),
    Last(i32, &'static str),
}

impl Victim {
    fn path(self, image: &Image) -> PathBuf {
        let of = |partition: i32, suffix: &str| {
            let folder = format!("/data/topics/orders-{partition}.");
            let names = image.files.keys();
            let mut names: Vec<_> = names
                .filter(|path| path.to_string_lossy().starts_with(&folder))
                .filter(|path| path.to_string_lossy().ends_with(suffix))
                .cloned()
                .collect();
            names.sort();
            names
        };
        let found = match self {
            Victim::Journal => image.newest_journal_file(),
            Victim::Aside => (image.files.keys())
                .find(|path| path.to_string_lossy().contains("/side-"))
                .cloned(),
            Victim::First(partition, suffix) => of(partition, suffix).first().cloned(),
            Victim::Last(partition, suffix) => of(partition, suffix).last().cloned(),
        };
        found.unwrap_or_else(|| panic!("{self:?}: {:?}", image.files.keys()))
    }
}

/// What a line of the table is about. Its cells are in the document: what comes of it after a clean stop, after kill -9,
/// while running, and what the check says after the clean stop (after kill -9 where there is none).
type Row = (&'static str, Victim, Damage);

/// The bit that is flipped in records, behind the header of the first batch.
const IN_RECORDS: u64 = 90;
/// And in the base offset of the first batch.
const IN_OFFSET: u64 = 6;

#[rustfmt::skip]
const ROWS: &[Row] = &[
    ("journal file with the newest frames", Victim::Journal, Damage::CutTo(image::IN_FRAME)),
    ("journal file, first copy of its header", Victim::Journal, Damage::Flip(20)),
    ("journal file, a frame", Victim::Journal, Damage::Flip(image::IN_FRAME)),
    ("journal file with the newest frames", Victim::Journal, Damage::Emptied),
    ("journal file with the newest frames", Victim::Journal, Damage::Deleted),
    ("side file of the journal", Victim::Aside, Damage::Cut),
    ("side file of the journal", Victim::Aside, Damage::Flip(image::IN_ASIDE)),
    ("side file of the journal", Victim::Aside, Damage::Emptied),
    ("side file of the journal", Victim::Aside, Damage::Deleted),
    ("`.log`, closed", Victim::First(0, ".log"), Damage::Cut),
    ("`.log`, closed, in records", Victim::First(0, ".log"), Damage::Flip(IN_RECORDS)),
    ("`.log`, closed, in a base offset", Victim::First(0, ".log"), Damage::Flip(IN_OFFSET)),
    ("`.log`, closed", Victim::First(0, ".log"), Damage::Emptied),
    ("`.log`, closed", Victim::First(0, ".log"), Damage::Deleted),
    ("`.log`, active", Victim::Last(0, ".log"), Damage::Cut),
    ("`.log`, active, in records", Victim::Last(0, ".log"), Damage::Flip(IN_RECORDS)),
    ("`.log`, active", Victim::Last(0, ".log"), Damage::Emptied),
    ("`.log`, active", Victim::Last(0, ".log"), Damage::Deleted),
    ("`.rN.log`, settled", Victim::First(2, ".log"), Damage::Cut),
    ("`.rN.log`, settled, in records", Victim::First(2, ".log"), Damage::Flip(IN_RECORDS)),
    ("`.rN.log`, settled", Victim::First(2, ".log"), Damage::Emptied),
    ("`.rN.log`, settled", Victim::First(2, ".log"), Damage::Deleted),
    ("`.entries`, closed", Victim::First(0, ".entries"), Damage::Cut),
    ("`.entries`, closed", Victim::First(0, ".entries"), Damage::Flip(100)),
    ("`.entries`, closed", Victim::First(0, ".entries"), Damage::Emptied),
    ("`.entries`, closed", Victim::First(0, ".entries"), Damage::Deleted),
    ("`.entries`, active", Victim::Last(0, ".entries"), Damage::Cut),
    ("`.entries`, active", Victim::Last(0, ".entries"), Damage::Flip(100)),
    ("`.entries`, active", Victim::Last(0, ".entries"), Damage::Emptied),
    ("`.entries`, active", Victim::Last(0, ".entries"), Damage::Deleted),
    ("`.index`, closed", Victim::First(0, ".index"), Damage::Cut),
    ("`.index`, closed", Victim::First(0, ".index"), Damage::Flip(2)),
    ("`.index`, closed", Victim::First(0, ".index"), Damage::Emptied),
    ("`.index`, closed", Victim::First(0, ".index"), Damage::Deleted),
    ("`.timeindex`, closed", Victim::First(0, ".timeindex"), Damage::Cut),
    ("`.timeindex`, closed", Victim::First(0, ".timeindex"), Damage::Flip(6)),
    ("`.timeindex`, closed", Victim::First(0, ".timeindex"), Damage::Emptied),
    ("`.timeindex`, closed", Victim::First(0, ".timeindex"), Damage::Deleted),
    ("`.entryindex`, closed", Victim::First(0, ".entryindex"), Damage::Cut),
    ("`.entryindex`, closed", Victim::First(0, ".entryindex"), Damage::Flip(5)),
    ("`.entryindex`, closed", Victim::First(0, ".entryindex"), Damage::Emptied),
    ("`.entryindex`, closed", Victim::First(0, ".entryindex"), Damage::Deleted),
    ("`.index`, active", Victim::Last(0, ".index"), Damage::Cut),
    ("`.index`, active", Victim::Last(0, ".index"), Damage::Flip(2)),
    ("`.index`, active", Victim::Last(0, ".index"), Damage::Deleted),
    ("`.snapshot`", Victim::Last(0, ".snapshot"), Damage::Cut),
    ("`.snapshot`", Victim::Last(0, ".snapshot"), Damage::Flip(12)),
    ("`.snapshot`", Victim::Last(0, ".snapshot"), Damage::Emptied),
    ("`.snapshot`", Victim::Last(0, ".snapshot"), Damage::Deleted),
    ("`leader-epoch-checkpoint`", Victim::Last(0, "leader-epoch-checkpoint"), Damage::Cut),
    ("`leader-epoch-checkpoint`", Victim::Last(0, "leader-epoch-checkpoint"), Damage::Flip(0)),
    ("`leader-epoch-checkpoint`", Victim::Last(0, "leader-epoch-checkpoint"), Damage::Emptied),
    ("`leader-epoch-checkpoint`", Victim::Last(0, "leader-epoch-checkpoint"), Damage::Deleted),
];

/// The lines of the document's table.
fn document() -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/DISK_FORMAT.md");
    let document = std::fs::read_to_string(path).expect("the document");
    let lines = document.lines();
    let lines = lines.skip_while(|line| !line.starts_with("| File of the journal or of a log |"));
    let table = lines.take_while(|line| line.starts_with('|'));
    table.skip(2).map(str::to_owned).collect()
}

#[test]
fn every_kind_of_damage_ends_as_the_document_says() {
    let images = block_on(Images::make());
    let lines = ROWS.iter().map(|(name, victim, damage)| {
        let cells = run(&images, *victim, *damage);
        format!("| {name} | {} | {} |", damage.word(), cells.join(" | "))
    });
    let lines: Vec<String> = lines.collect();
    assert!(lines == document(), "the table is\n{}", lines.join("\n"));
}

/// The cells of a row.
fn run(images: &Images, victim: Victim, damage: Damage) -> Vec<String> {
    if matches!(victim, Victim::Aside) {
        // A log whose frames are set aside is stopped, so that no stop is clean.
        let (path, damage) = images.aside.place(victim, damage);
        let (killed, check) = at_start(&images.aside, &path, damage);
        let running = while_running(&images.aside, &path, damage);
        return vec!["-".to_owned(), killed, running, check];
    }
    let (path, at) = images.stopped.place(victim, damage);
    let (stopped, check) = at_start(&images.stopped, &path, at);
    let running = while_running(&images.stopped, &path, at);
    let (path, at) = images.killed.place(victim, damage);
    let (killed, _) = at_start(&images.killed, &path, at);
    vec![stopped, killed, running, check]
}

#[test]
fn a_directory_after_either_stop_is_clean_to_the_check() {
    let images = block_on(Images::make());
    for image in [&images.stopped, &images.killed, &images.aside] {
        let machine = image.restore();
        let report = cells::check_machine(&machine);
        assert_eq!(report.findings, []);
        assert_eq!(report.clean_stop, std::ptr::eq(image, &images.stopped));
        assert!(report.segments > 6 && report.batches > 400, "{report:?}");
        assert_eq!(Image::of(&machine), *image, "the check changed something");
        // And the check knows when something is there that nobody knows.
        for name in ["x", "journal/x", "topics/x/y"] {
            let path = Path::new("/data").join(name);
            machine
                .fs
                .create_dir_all(path.parent().expect("has one"))
                .expect("is made");
            drop(
                machine
                    .fs
                    .open(&path, crate::fs::OpenMode::CreateOrOpen)
                    .ok(),
            );
        }
        let findings = cells::check_machine(&machine).findings;
        let found: Vec<_> = findings
            .iter()
            .map(|finding| finding.file.as_str())
            .collect();
        assert_eq!(
            found,
            ["journal/x", "topics/x", "topics/x/y", "x"],
            "{findings:?}"
        );
    }
}

/// Frames that are written after the journal was lost must not look like those that checkpoints cover already, and what
/// was lost must not be missed again.
#[test]
fn what_is_written_over_a_lost_journal_survives_the_next_kill() {
    let images = block_on(Images::make());
    for file in 0..2 {
        let machine = images.stopped.restore();
        let journal = Path::new("/data/journal");
        let names = machine.fs.list(journal).expect("is there");
        for name in names.iter().skip(file) {
            machine
                .fs
                .remove_file(&journal.join(name))
                .expect("is removed");
        }
        let (manager, report) = machine.open();
        assert!(!report.journal_damage.is_empty() && report.stopped.is_empty());
        let log = find(&manager, 0);
        block_on(append_batches(&log, vec![batch_at(1, 1, b"later")]));
        let (end, killed) = (log.bounds().log_end, Image::of(&machine));
        let machine = killed.restore();
        let (manager, report) = machine.open();
        assert_eq!((report.journal_damage, report.stopped), (vec![], vec![]));
        assert_eq!(find(&manager, 0).bounds().log_end, end);
    }
}
