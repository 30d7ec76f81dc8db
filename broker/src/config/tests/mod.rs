//! Tests of configuration as a whole: tables against Kafka's, precedence, messages, resolution.

mod altering;
mod precedence;
mod resolution;
mod tables;

use std::fs;

use super::load::{Loaded, load};
use super::sources::LoadArgs;

/// Loads from a file's text, variables and `--set` arguments.
fn load_from(file: &str, variables: &[(&str, &str)], sets: &[&str]) -> Result<Loaded, String> {
    let dir = tempfile::tempdir().expect("temporary directory");
    let path = dir.path().join("server.properties");
    fs::write(&path, file).expect("writable");
    let args = LoadArgs {
        data_dir: None,
        config_file: Some(path),
        sets: sets.iter().map(|s| (*s).to_owned()).collect(),
        environment: variables
            .iter()
            .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
            .collect(),
    };
    let shown = dir.path().display().to_string();
    load(&args).map_err(|errors| errors.to_string().replace(&format!("{shown}/"), ""))
}
