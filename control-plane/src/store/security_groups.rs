//! Security groups: rows and SQL.

use std::collections::BTreeMap;

use muster_api::{
    Labels, SecurityGroupId, Timestamp, network::NetworkState, node_protocol::network::Rule, operation::Target,
};

use super::{
    Filter, StoreError, Tx,
    bulk::{self, Conditions},
    column,
    row::{columns, select, select_one},
};

/// Row of a security group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecurityGroupRow {
    /// Its id.
    pub id: SecurityGroupId,
    /// The project that owns it.
    pub project: String,
    /// Name, unique among the project's that are not deleted.
    pub name: String,
    /// Labels that users gave it.
    pub labels: Labels,
    /// Whether it is deleted.
    pub state: NetworkState,
    /// What it lets through.
    pub rules: Vec<Rule>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
    /// Raised by each change; a save compares it.
    pub revision: i64,
    /// Its place in lists and in the order of all commits.
    pub seq: i64,
}

impl SecurityGroupRow {
    /// How events name it.
    #[must_use]
    pub fn target(&self) -> Target {
        Target { kind: "security_group".to_owned(), id: self.id.to_string(), name: self.name.clone() }
    }
}

columns!(
    "security_groups", SecurityGroupRow: id, project, name, labels, state, rules, created_at, updated_at, revision, seq,
);

/// Inserts a security group.
pub async fn insert(tx: &mut Tx, row: &SecurityGroupRow) -> Result<(), StoreError> {
    bulk::insert(tx, std::slice::from_ref(row)).await
}

/// The security group with this id, also a deleted one.
pub async fn load(tx: &mut Tx, id: SecurityGroupId) -> Result<Option<SecurityGroupRow>, StoreError> {
    select_one(tx, "security_groups.load", "WHERE id = $1", [id.to_string().into()]).await
}

/// The security groups with these ids that exist, also deleted ones.
pub async fn load_many(tx: &mut Tx, ids: &[SecurityGroupId]) -> Result<Vec<SecurityGroupRow>, StoreError> {
    bulk::load_many(tx, "security_groups.load_many", ids).await
}

/// The project's security group of that name, if it is not deleted.
pub async fn by_name(tx: &mut Tx, project: &str, name: &str) -> Result<Option<SecurityGroupRow>, StoreError> {
    let rest = "WHERE project = $1 AND name = $2 AND state <> 'deleted'";
    select_one(tx, "security_groups.by_name", rest, [project.into(), name.into()]).await
}

/// All security groups of a project that are not deleted.
pub async fn of_project(tx: &mut Tx, project: &str) -> Result<Vec<SecurityGroupRow>, StoreError> {
    let rest = "WHERE project = $1 AND state <> 'deleted' ORDER BY seq";
    select(tx, "security_groups.of_project", rest, [project.into()]).await
}

const NAMES: &str = "-- security_groups.names
SELECT id, name FROM security_groups WHERE id";

/// The names of the security groups with these ids that exist.
pub async fn names(tx: &mut Tx, ids: &[SecurityGroupId]) -> Result<BTreeMap<SecurityGroupId, String>, StoreError> {
    let rows = bulk::select_in(tx, NAMES, ids, "").await?;
    rows.iter().map(|row| Ok((column::read(row, "id")?, column::read(row, "name")?))).collect()
}

/// Security groups after the place `after`, oldest first.
pub async fn list(tx: &mut Tx, filter: &Filter, after: i64, limit: i64) -> Result<Vec<SecurityGroupRow>, StoreError> {
    let mut conditions = Conditions::of_list(filter, after)?;
    conditions.one_of("state", &filter.states);
    conditions.fetch(tx, "security_groups.list", limit).await
}

/// How many security groups the project has, or all projects have, by state.
pub async fn by_state(tx: &mut Tx, project: Option<&str>) -> Result<BTreeMap<String, u64>, StoreError> {
    bulk::by_state(tx, "security_groups", project).await
}

const SAVE: &str = "-- security_groups.save
UPDATE security_groups SET name = $3, labels = $4, rules = $5, state = $6, updated_at = $7, deleted_at = $8,
    revision = revision + 1
WHERE id = $1 AND revision = $2 AND state <> 'deleted'";

/// Saves what may change. A [`StoreError::Conflict`] if it was deleted or somebody else saved it since it was read.
pub async fn save(tx: &mut Tx, row: &SecurityGroupRow) -> Result<(), StoreError> {
    let now = tx.now().micros();
    let done = sqlx::query(SAVE)
        .bind(row.id.to_string())
        .bind(row.revision)
        .bind(&row.name)
        .bind(column::json_text(&row.labels)?)
        .bind(column::json_text(&row.rules)?)
        .bind(column::word_text(row.state)?)
        .bind(now)
        .bind((row.state == NetworkState::Deleted).then_some(now))
        .execute(tx.conn())
        .await?;
    StoreError::unless_saved(&done, "security_groups", row.id)
}

const FORGET: &str = "-- security_groups.forget
DELETE FROM security_groups WHERE deleted_at < $1";

/// Drops security groups that were deleted before that time. Returns how many.
pub async fn forget(tx: &mut Tx, before: Timestamp) -> Result<u64, StoreError> {
    Ok(sqlx::query(FORGET).bind(before.micros()).execute(tx.conn()).await?.rows_affected())
}
