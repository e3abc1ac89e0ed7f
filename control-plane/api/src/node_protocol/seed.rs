//! What a guest is told about itself when it boots, by cloud-init or a program like it.

use serde::{Deserialize, Serialize};

/// What a node writes onto the seed disk of an instance. Id, host name and addresses are in the assignment itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seed {
    /// Public keys that may sign in, one line each, as in `authorized_keys`.
    pub ssh_keys: Vec<String>,
    /// What the user wants done at the first boot: cloud-config, a script or MIME parts. At most [`USER_DATA_MAX_BYTES`].
    pub user_data: Option<String>,
}

/// Most bytes of user data.
pub const USER_DATA_MAX_BYTES: usize = 64 << 10;
