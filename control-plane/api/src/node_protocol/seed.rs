//! What a guest is told about itself when it boots, by cloud-init or a program like it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a node writes onto the seed disks of a deployment's instances. Their ids, host names and addresses are in their
/// assignments. The texts were checked when the deployment was made.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seed {
    /// Public keys that may sign in, one line each, as in `authorized_keys`.
    pub ssh_keys: Vec<String>,
    /// What the user wants done at the first boot: cloud-config, a script or a MIME message.
    pub user_data: Option<String>,
}

impl fmt::Debug for Seed {
    /// User data may have secrets, which must not get into a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.user_data.as_ref().map(String::len);
        f.debug_struct("Seed").field("ssh_keys", &self.ssh_keys.len()).field("user_data_bytes", &bytes).finish()
    }
}
