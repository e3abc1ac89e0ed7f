//! Instances are shown and labelled.

use muster_api::{
    InstanceId, NodeId, Page, Ref,
    instance::{Instance, InstanceState, PatchInstance},
};

use super::{
    super::{Answer, App, AppError, Asked, Caller, find, labels::patched, list::ListQuery},
    change::event,
    view,
};
use crate::store::{Filter, Tx, events, instances, nodes};

impl App {
    /// One instance, by id or name, unless it is deleted.
    pub async fn instance(&self, caller: &Caller, wanted: &Ref<InstanceId>) -> Result<Instance, AppError> {
        self.store
            .read("instances.show", async |tx| {
                let row = find::instance(tx, caller, wanted).await?;
                view::one(self, tx, caller, row).await
            })
            .await
    }

    /// A page of instances. The filter `node` is for operators.
    pub async fn instances(&self, caller: &Caller, list: &ListQuery) -> Result<Page<Instance>, AppError> {
        list.filter.states_of::<InstanceState>()?;
        list.filter.allowed_to(caller)?;
        self.store
            .read("instances.list", async |tx| {
                let nodes = node_ids(tx, &list.filter.nodes).await?;
                let filter = Filter { nodes, ..list.row_filter(tx, caller).await? };
                let mut pager = list.pager(tx).await?;
                while let Some((after, n)) = pager.wants() {
                    pager.take(instances::list(tx, &filter, after, n).await?, |row| row.seq, Some);
                }
                let page = pager.page();
                let items = view::many(self, tx, caller, page.items).await?;
                Ok(Page { items, next_page_token: page.next_page_token, as_of: page.as_of })
            })
            .await
    }

    /// Replaces the labels; nothing else of an instance can be patched.
    pub async fn patch_instance(
        &self,
        asked: &Asked<Ref<InstanceId>>,
        patch: &PatchInstance,
    ) -> Result<Answer, AppError> {
        self.once(&asked.once, "instances.patch", async |tx| {
            let mut row = find::instance(tx, &asked.caller, &asked.thing).await?;
            asked.check_if_match(row.revision)?;
            let labels = patched(&row.labels, &patch.labels)?;
            if labels != row.labels {
                instances::save_labels(tx, &row, &labels).await?;
                row = find::instance(tx, &asked.caller, &Ref::Id(row.id)).await?;
                events::append(tx, event(&row, &asked.caller.name)).await?;
            }
            Answer::ok(&view::one(self, tx, &asked.caller, row).await?)
        })
        .await
    }
}

/// The ids of the nodes that a filter names. A name that no node has stays as it is and matches no row.
async fn node_ids(tx: &mut Tx, wanted: &[String]) -> Result<Vec<String>, AppError> {
    let mut ids = Vec::new();
    for reference in wanted {
        let id = match reference.parse::<NodeId>() {
            Ok(id) => id.to_string(),
            Err(_) => {
                nodes::by_name(tx, reference).await?.map_or_else(|| reference.clone(), |node| node.id.to_string())
            }
        };
        ids.push(id);
    }
    Ok(ids)
}
