//! `muster session …`.

use muster_api::session::Session;

use super::{Ctx, Frees};
use crate::{
    args::SessionCommand,
    cells::{age, optional, word},
    client::Call,
    failure::Failure,
    table::{Column, Order, names, numbers, texts, wide, words},
};

const SESSIONS: [Column<Session>; 8] = [
    words("ID", |v| v.id.to_string()),
    names("TOKEN", |v| v.token_name.clone()),
    wide(words("ROLE", |v| word(&v.role))),
    wide(names("PROJECT", |v| optional(v.project.as_ref()))),
    words("ADDRESS", |v| optional(v.address.as_ref())),
    numbers("USED", |v| optional(v.last_used_at.map(age))),
    numbers("ENDS", |v| age(v.expires_at)),
    wide(texts("BROWSER", |v| optional(v.agent.as_ref()))),
];

pub(super) async fn run(ctx: &Ctx, command: SessionCommand) -> Result<(), Failure> {
    match command {
        SessionCommand::Ls => ctx.list(&Call::to(&["v1", "sessions"]), &SESSIONS, Order::Time).await,
        SessionCommand::Rm(removal) => ctx.remove("session", &["v1", "sessions"], &removal, Frees::Nothing).await,
    }
}
