//! Keys that stay the same for as long as a client lives. New ones come with a new client.

use object_store::{StaticCredentialProvider, aws::AwsCredential};
use storage_core::repository::RepositoryKeys;

/// Without this the client would look for other keys on the machine, such as those of a cloud's metadata service.
pub(super) fn fixed_keys(keys: &RepositoryKeys) -> StaticCredentialProvider<AwsCredential> {
    StaticCredentialProvider::new(AwsCredential {
        key_id: keys.access_key_id.clone(),
        secret_key: keys.secret_access_key.clone(),
        token: keys.session_token.clone(),
    })
}
