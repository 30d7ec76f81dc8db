//! The controller: the group that holds the cluster's metadata.

use std::time::Duration;

use tokio::sync::watch;

use crate::errors::SubmitError;
use crate::metadata::command::{Command, Outcome};

/// Handle to the controller group.
#[derive(Debug)]
pub struct Controller {
    versions: watch::Receiver<u64>,
}

impl Controller {
    /// Carries out a command. Returns once it is committed and the image of this broker shows it.
    pub async fn submit(
        &self,
        _command: Command,
        _timeout: Duration,
    ) -> Result<Outcome, SubmitError> {
        unimplemented!()
    }

    /// Version of the image, for those who act on changes.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.versions.clone()
    }
}
