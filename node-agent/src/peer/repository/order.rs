//! What the controller last said of the repository, kept in `DATA/repository.json` (mode 0600), so that a node that starts
//! without a controller reads and writes it.

use std::{
    io,
    path::{Path, PathBuf},
};

use muster_api::node_protocol::repository::RepositoryOrder;
use tracing::warn;

use crate::{identity::replace_file, sealed};

/// The file. It has secrets.
#[derive(Clone, Debug)]
pub(super) struct OrderFile(PathBuf);

impl OrderFile {
    pub(super) fn new(data_dir: &Path) -> Self {
        Self(data_dir.join("repository.json"))
    }

    pub(super) fn load(&self) -> Option<RepositoryOrder> {
        let order = match std::fs::read(&self.0) {
            Ok(bytes) => sealed::open(&bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => Err(error),
        };
        // The error of a parser may show a part of what it read.
        order.inspect_err(|_| warn!("repository.json cannot be read; the controller is asked for it")).ok()
    }

    pub(super) fn store(&self, order: &RepositoryOrder) -> io::Result<()> {
        replace_file(&self.0, &sealed::seal(order)?)
    }
}
