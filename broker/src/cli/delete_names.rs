//! Deleting several things one after the other: one that fails does not keep the others.

use super::failure::Failure;

/// Says what became of each; failed if one failed.
pub(super) async fn delete_each(
    names: &[String],
    mut delete: impl AsyncFnMut(&str) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut outcome = Ok(());
    for name in names {
        match delete(name).await {
            Ok(()) => {}
            Err(Failure::Failed(message)) => {
                eprintln!("error: {message}");
                outcome = Err(Failure::Reported);
            }
            Err(other) => return Err(other),
        }
    }
    outcome
}
