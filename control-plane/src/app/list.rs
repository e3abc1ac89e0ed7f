//! Lists: which rows a caller asks for, and a page of them.

use muster_api::{DeploymentId, Labels, NetworkId, Page, firmware::Firmware};
use serde::{Serialize, de::DeserializeOwned};

use super::{AppError, Caller};
pub use crate::store::Position;
use crate::store::{self, Seal, Tx, column, deployments, networks, words};

/// What a list is asked for: place, length and filters.
#[derive(Clone, Debug)]
pub struct ListQuery {
    /// Only rows after this place, which is the page token of an earlier answer; from the beginning if `None`.
    pub after: Option<String>,
    /// Most items of the page, 1 to 1000.
    pub limit: usize,
    /// Also what was deleted in the last 24 hours.
    pub deleted: bool,
    /// Which rows are wanted. An empty filter wants all.
    pub filter: Filter,
}

/// Equality filters. Values of one name are alternatives; different names must all hold. Which of them a list has is said
/// in the description of its call, and others are refused before they get here.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// `state=`
    pub states: Vec<String>,
    /// `label=KEY=VALUE`
    pub labels: Vec<(String, String)>,
    /// `deployment=`, ids or names. They are looked up when the list is read.
    pub deployments: Vec<String>,
    /// `node=`, ids or names. They are looked up when the list is read.
    pub nodes: Vec<String>,
    /// `network=`, ids or names. They are looked up when the list is read.
    pub networks: Vec<String>,
    /// `instance=`, ids or names. They are looked up when the list is read.
    pub instances: Vec<String>,
    /// `target=`, ids of things.
    pub targets: Vec<String>,
    /// `os=`, of images.
    pub systems: Vec<String>,
    /// `firmware=`, of images.
    pub firmware: Vec<String>,
}

impl Filter {
    /// Names of the filters in queries.
    pub const NAMES: [&'static str; 9] =
        ["state", "label", "deployment", "node", "network", "instance", "target", "os", "firmware"];

    /// Refuses a `state=` that is none of the words of `S`, because it would find nothing without saying why.
    pub fn states_of<S: DeserializeOwned>(&self) -> Result<(), AppError> {
        self.states_among(words::of::<S>())
    }

    /// As [`Self::states_of`], with the words themselves.
    pub fn states_among(&self, known: &[&str]) -> Result<(), AppError> {
        match self.states.iter().find(|state| !known.contains(&state.as_str())) {
            None => Ok(()),
            Some(state) => {
                let known = known.join(", ");
                Err(AppError::BadRequest(format!("there is no state '{state}' here: the states are {known}")))
            }
        }
    }

    /// Refuses a filter by node of anybody but operators: which things are on one node tells something of nodes (I12).
    pub fn allowed_to(&self, caller: &Caller) -> Result<(), AppError> {
        if self.nodes.is_empty() { Ok(()) } else { caller.require_operator() }
    }

    /// Whether a thing in `state` with `labels` is wanted.
    #[must_use]
    pub fn keeps(&self, state: impl Serialize, labels: &Labels) -> bool {
        self.keeps_state(state) && self.keeps_labels(labels)
    }

    /// Whether a thing in `state` is wanted.
    #[must_use]
    pub fn keeps_state(&self, state: impl Serialize) -> bool {
        self.states.is_empty() || self.states.contains(&column::word_text(state).expect("a state is a word"))
    }

    /// Whether an image with this operating system is wanted.
    #[must_use]
    pub fn keeps_os(&self, os: Option<&str>) -> bool {
        self.systems.is_empty() || os.is_some_and(|os| self.systems.iter().any(|wanted| wanted == os))
    }

    /// Refuses a `firmware=` that no image can have.
    pub fn firmware_is_known(&self) -> Result<(), AppError> {
        let known = words::of::<Firmware>();
        match self.firmware.iter().find(|firmware| !known.contains(&firmware.as_str())) {
            None => Ok(()),
            Some(firmware) => {
                let known = known.join(", ");
                Err(AppError::BadRequest(format!("there is no firmware '{firmware}': there are {known}")))
            }
        }
    }

    /// Whether an image with this firmware is wanted.
    #[must_use]
    pub fn keeps_firmware(&self, firmware: impl Serialize) -> bool {
        self.firmware.is_empty() || self.firmware.contains(&column::word_text(firmware).expect("firmware is a word"))
    }

    /// Whether a thing with `labels` is wanted. `label=a=1&label=a=2` are alternatives, `label=a=1&label=b=2` must both
    /// hold.
    #[must_use]
    pub fn keeps_labels(&self, labels: &Labels) -> bool {
        self.labels.iter().all(|(key, _)| {
            self.labels.iter().any(|(other, value)| other == key && labels.get(key) == Some(value.as_str()))
        })
    }
}

impl ListQuery {
    /// Begins a page that is true at the transaction's position.
    ///
    /// ```ignore
    /// self.store.read("images.list", async |tx| {
    ///     let mut pager = list.pager(tx).await?;
    ///     while let Some((after, n)) = pager.wants() {
    ///         let rows = images::list(tx, project, after, n).await?;        // WHERE seq > $1 ORDER BY seq LIMIT $2
    ///         pager.take(rows, |row| row.seq, |row| list.filter.keeps(row.state, &row.labels).then(|| row.view()));
    ///     }
    ///     Ok::<_, AppError>(pager.page())
    /// }).await
    /// ```
    pub async fn pager<T>(&self, tx: &mut Tx) -> Result<Pager<T>, AppError> {
        let as_of = tx.as_of().await?;
        let seal = tx.seal();
        let after = self.after.as_deref().map_or(Ok(0), |after| in_history(opened(&seal, after)?, as_of))?;
        Ok(Pager {
            items: Vec::new(),
            limit: self.limit,
            after,
            asked: self.limit.max(100) + 1,
            end: None,
            as_of,
            seal,
        })
    }

    /// The filter for the database. Filters by node are left to the lists that have nodes.
    pub(crate) async fn row_filter(&self, tx: &mut Tx, caller: &Caller) -> Result<store::Filter, AppError> {
        Ok(store::Filter {
            project: caller.list_project().map(str::to_owned),
            states: self.filter.states.clone(),
            labels: self.filter.labels.clone(),
            deployments: deployment_ids(tx, caller, &self.filter.deployments).await?,
            nodes: Vec::new(),
            networks: network_ids(tx, caller, &self.filter.networks).await?,
            deleted: self.deleted,
        })
    }
}

/// The ids of the deployments that a filter names. A name that no deployment has stays as it is and matches no row.
async fn deployment_ids(tx: &mut Tx, caller: &Caller, wanted: &[String]) -> Result<Vec<String>, AppError> {
    let mut ids = Vec::new();
    for reference in wanted {
        let found = match (reference.parse::<DeploymentId>(), caller.list_project()) {
            (Ok(id), _) => Some(id.to_string()),
            (Err(_), Some(project)) => {
                deployments::by_name(tx, project, reference).await?.map(|row| row.id.to_string())
            }
            (Err(_), None) => {
                return Err(AppError::BadRequest(format!("'{reference}': with ?project=* name deployments by id")));
            }
        };
        ids.push(found.unwrap_or_else(|| reference.clone()));
    }
    Ok(ids)
}

/// The ids of the networks that a filter names, in the same way.
async fn network_ids(tx: &mut Tx, caller: &Caller, wanted: &[String]) -> Result<Vec<String>, AppError> {
    let mut ids = Vec::new();
    for reference in wanted {
        let found = match (reference.parse::<NetworkId>(), caller.list_project()) {
            (Ok(id), _) => Some(id.to_string()),
            (Err(_), Some(project)) => networks::by_name(tx, project, reference).await?.map(|row| row.id.to_string()),
            (Err(_), None) => {
                return Err(AppError::BadRequest(format!("'{reference}': with ?project=* name networks by id")));
            }
        };
        ids.push(found.unwrap_or_else(|| reference.clone()));
    }
    Ok(ids)
}

/// The position that a caller was given as this text.
pub(crate) fn opened(seal: &Seal, text: &str) -> Result<Position, AppError> {
    seal.open(text).map_err(|error| AppError::BadRequest(format!("'{text}': {error}")))
}

/// The `seq` of a position that was given to a caller.
///
/// # Errors
/// The database was replaced by an older copy: the position is of another history, where the same number is another
/// row, or the database has not reached it.
pub(crate) fn in_history(given: Position, as_of: Position) -> Result<i64, AppError> {
    if given.history == as_of.history && given.seq <= as_of.seq {
        return Ok(given.seq);
    }
    let why = "the position is not of this database as it is now: list again from the beginning";
    Err(AppError::BadRequest(why.to_owned()))
}

/// A page that is being collected: it asks for rows in `seq` order until it is full or no rows are left.
#[derive(Debug)]
pub struct Pager<T> {
    items: Vec<T>,
    limit: usize,
    after: i64,
    asked: usize,
    end: Option<End>,
    as_of: Position,
    seal: Seal,
}

#[derive(Debug)]
enum End {
    NoMoreRows,
    /// The page is full and something is left for the next one.
    Full,
}

impl<T> Pager<T> {
    /// Which rows to fetch next: those with a `seq` above the first number, at most as many as the second.
    #[must_use]
    pub fn wants(&self) -> Option<(i64, i64)> {
        let asked = i64::try_from(self.asked).expect("a page has at most 1000 items");
        self.end.is_none().then_some((self.after, asked))
    }

    /// Takes the rows that were fetched. `seq_of` tells a row's place; `keep` makes the item, or `None` for a row that
    /// is filtered out.
    pub fn take<R>(&mut self, rows: Vec<R>, seq_of: impl Fn(&R) -> i64, keep: impl Fn(R) -> Option<T>) {
        if rows.len() < self.asked {
            self.end = Some(End::NoMoreRows);
        }
        for row in rows {
            let seq = seq_of(&row);
            if let Some(item) = keep(row) {
                if self.items.len() == self.limit {
                    self.end = Some(End::Full);
                    return;
                }
                self.items.push(item);
            }
            self.after = seq;
        }
    }

    /// The page. It has a token for the next one if there are more items.
    #[must_use]
    pub fn page(self) -> Page<T> {
        let next_page_token =
            matches!(self.end, Some(End::Full)).then(|| self.seal.token(Position { seq: self.after, ..self.as_of }));
        Page { items: self.items, next_page_token, as_of: self.seal.token(self.as_of) }
    }
}
