//! `muster token …`.

use muster_api::token::{CreateToken, Role};

use super::{Ctx, Frees, body, parsed};
use crate::{
    args::{RoleArg, TokenCommand},
    client::Call,
    failure::Failure,
    output::{Column, age, numbers, text, words},
};

const TOKENS: [Column; 6] = [
    words("NAME", |v| text(v, "/name")),
    words("ROLE", |v| text(v, "/role")),
    words("PROJECT", |v| text(v, "/project")),
    numbers("ENDS", |v| age(v, "/expires_at")),
    numbers("USES LEFT", |v| text(v, "/uses_left")),
    words("ID", |v| text(v, "/id")),
];

pub(super) async fn run(ctx: &Ctx, command: TokenCommand) -> Result<(), Failure> {
    match command {
        TokenCommand::Ls => ctx.list(&Call::to(&["v1", "tokens"]), &TOKENS).await,
        TokenCommand::Create { role, name, ttl, uses } => {
            let role = match role {
                RoleArg::Admin => Role::Admin,
                RoleArg::Tenant => Role::Tenant,
                RoleArg::Node => Role::Node,
            };
            // A tenant's token is for the project one works in (`--project`); the call itself says it in its query.
            let request = CreateToken {
                name: name.as_deref().map(|n| parsed("name", n)).transpose()?,
                role,
                project: match (role, ctx.client.project()) {
                    (Role::Tenant, Some(project)) => Some(parsed("project", project)?),
                    _ => None,
                },
                ttl_s: ttl.map(|t| t.as_secs()),
                uses,
            };
            let answer = ctx.client.post(&Call::to(&["v1", "tokens"]), &body(&request)?).await?;
            let about = format!(
                "token {} ({}), ends {}; it is shown only now",
                text(&answer.body, "/name"),
                text(&answer.body, "/role"),
                text(&answer.body, "/expires_at")
            );
            ctx.out.notes.say(&about);
            // The secret alone on standard output: `muster token create … > file`.
            ctx.out.thing(&answer.body, || text(&answer.body, "/token"))
        }
        TokenCommand::Rm(removal) => ctx.remove("token", &["v1", "tokens"], &removal, Frees::Nothing).await,
    }
}
