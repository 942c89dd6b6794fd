//! Folders that measurements work in, each fresh, removed afterwards.

use std::io;
use std::path::{Path, PathBuf};

use crate::failure::Failure;

/// The folder under which every measurement gets a fresh one. What was created is removed when this is dropped.
#[derive(Debug)]
pub(super) struct Workplace {
    folder: PathBuf,
    created: bool,
}

impl Workplace {
    /// Takes `folder`, which is missing or empty; without one, a new folder in the current directory.
    pub(super) fn new(folder: Option<PathBuf>) -> Result<Self, Failure> {
        let folder = folder
            .unwrap_or_else(|| PathBuf::from(format!("halfmoon-bench-{}", std::process::id())));
        let shown = folder.display();
        let refused = |error: io::Error| {
            Failure::Environment(format!(
                "--data {shown}: {error}; name a folder that can be made here"
            ))
        };
        let created = match std::fs::read_dir(&folder) {
            Ok(mut entries) => {
                if entries.next().is_some() {
                    return Err(Failure::Environment(format!(
                        "--data {shown} is not empty; name an empty or a new folder to measure in"
                    )));
                }
                false
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                std::fs::create_dir_all(&folder).map_err(refused)?;
                true
            }
            Err(error) => return Err(refused(error)),
        };
        Ok(Self { folder, created })
    }

    /// A fresh place in it, called `name`.
    pub(super) fn place(&self, name: &str) -> Place {
        Place(self.folder.join(name))
    }
}

impl Drop for Workplace {
    fn drop(&mut self) {
        if self.created {
            remove(&self.folder);
        }
    }
}

/// One file or folder that a measurement makes. Removed when dropped.
#[derive(Debug)]
pub(super) struct Place(PathBuf);

impl Place {
    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        remove(&self.0);
    }
}

fn remove(path: &Path) {
    let removed = if path.is_dir() {
        std::fs::remove_dir_all(path)
    } else {
        std::fs::remove_file(path)
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), %error, "what a measurement made is left behind");
        }
        Ok(()) | Err(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_with_something_in_it_is_never_touched() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("thesis"), "x").unwrap();
        let failure = Workplace::new(Some(folder.path().into())).unwrap_err();
        assert!(failure.line().unwrap().contains("not empty"));
        assert!(folder.path().join("thesis").exists());
    }

    #[test]
    fn what_was_made_is_removed_and_what_was_there_stays() {
        let folder = tempfile::tempdir().unwrap();
        let new = folder.path().join("new");
        let workplace = Workplace::new(Some(new.clone())).unwrap();
        std::fs::write(workplace.place("one").path(), "x").unwrap();
        assert!(!new.join("one").exists(), "the place was dropped");
        drop(workplace);
        assert!(!new.exists());
        drop(Workplace::new(Some(folder.path().into())).unwrap());
        assert!(folder.path().exists());
    }
}
