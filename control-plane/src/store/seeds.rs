//! What the guests of a deployment are told when they first boot: keys that may sign in, and user data.
//!
//! User data may have secrets. Only the desired state of nodes and its own call read it.

use muster_api::{DeploymentId, node_protocol::seed::Seed};

use super::{
    StoreError, Tx, bulk,
    row::{Row as _, columns, select_one},
};

/// Row of what the guests of a deployment are told. There is none if they are told nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct SeedRow {
    /// The deployment.
    pub deployment: DeploymentId,
    /// Public keys that may sign in, one line each.
    pub ssh_keys: Vec<String>,
    /// What the user wants done at the first boot.
    pub user_data: Option<String>,
}

columns!("seeds", SeedRow: deployment, ssh_keys, user_data);

impl From<SeedRow> for Seed {
    fn from(row: SeedRow) -> Self {
        Self { ssh_keys: row.ssh_keys, user_data: row.user_data }
    }
}

/// Inserts what the guests of a new deployment are told, if that is anything.
pub async fn insert(tx: &mut Tx, deployment: DeploymentId, seed: Seed) -> Result<(), StoreError> {
    if seed == Seed::default() {
        return Ok(());
    }
    let row = SeedRow { deployment, ssh_keys: seed.ssh_keys, user_data: seed.user_data };
    bulk::insert(tx, std::slice::from_ref(&row)).await
}

/// What the guests of a deployment are told.
pub async fn load(tx: &mut Tx, deployment: DeploymentId) -> Result<Seed, StoreError> {
    let row: Option<SeedRow> =
        select_one(tx, "seeds.load", "WHERE deployment = $1", [deployment.to_string().into()]).await?;
    Ok(row.map(Seed::from).unwrap_or_default())
}

/// The rows of those of these deployments whose guests are told anything.
pub async fn load_many(tx: &mut Tx, deployments: &[&DeploymentId]) -> Result<Vec<SeedRow>, StoreError> {
    let head = format!("-- seeds.load_many\n{} WHERE deployment", SeedRow::SELECT);
    bulk::select_in(tx, &head, deployments, "").await?.iter().map(SeedRow::from_row).collect()
}

const DELETE: &str = "-- seeds.delete
DELETE FROM seeds WHERE deployment = $1";

/// Forgets what the guests of a deployment are told, because none of them starts any more.
pub async fn delete(tx: &mut Tx, deployment: DeploymentId) -> Result<(), StoreError> {
    sqlx::query(DELETE).bind(deployment.to_string()).execute(tx.conn()).await?;
    Ok(())
}
