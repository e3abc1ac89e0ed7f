//! `muster token …`.

use muster_api::{
    session::{CreateSignInLink, SignInLink},
    token::{CreateToken, Role, Token},
};

use super::{Ctx, Frees, body, parsed};
use crate::{
    answer::{Misfit, Object},
    args::TokenCommand,
    cells::{age, optional, word},
    client::Call,
    failure::Failure,
    table::{Column, Order, names, numbers, wide, words},
};

const TOKENS: [Column<Token>; 6] = [
    names("NAME", |v| v.name.clone()),
    words("ROLE", |v| word(&v.role)),
    names("PROJECT", |v| optional(v.project.as_ref())),
    numbers("ENDS", |v| age(v.expires_at)),
    numbers("USES LEFT", |v| optional(v.uses_left)),
    wide(words("ID", |v| v.id.to_string())),
];

fn tokens() -> Call {
    Call::to(&["v1", "tokens"])
}

pub(super) async fn run(ctx: &Ctx, command: TokenCommand) -> Result<(), Failure> {
    match command {
        TokenCommand::Ls => ctx.list(&tokens(), &TOKENS, Order::Name).await,
        TokenCommand::Create { role, name, ttl, uses } => {
            // A tenant's token is for the project of `--project`.
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
            create(ctx, &request).await
        }
        TokenCommand::Link { of } => link(ctx, of).await,
        TokenCommand::Rm(removal) => ctx.remove("token", &["v1", "tokens"], &removal, Frees::Nothing).await,
    }
}

async fn create(ctx: &Ctx, request: &CreateToken) -> Result<(), Failure> {
    let answer = ctx.client.post(&tokens(), &body(request)?).await?;
    if ctx.out.is_json() {
        return ctx.out.json(&answer.body);
    }
    // The secret comes first: nobody gives it a second time, whatever the rest of the answer looks like. Standard output
    // has nothing else: `muster token create … > file`.
    let secret = answer.body["token"].as_str().ok_or_else(|| Misfit("missing field `token`".to_owned()))?;
    ctx.out.line(secret)?;
    let Token { name, role, expires_at, .. } = Object::<Token>::of(answer.body)?.read;
    let role = word(&role);
    ctx.out.notes.say(&format!("token {name} ({role}), expires at {expires_at}; its secret is shown only now"));
    Ok(())
}

async fn link(ctx: &Ctx, token: Option<String>) -> Result<(), Failure> {
    let request = body(&CreateSignInLink { token })?;
    let answer = ctx.client.post(&Call::to(&["v1", "session", "link"]), &request).await?;
    if ctx.out.is_json() {
        return ctx.out.json(&answer.body);
    }
    let SignInLink { token_name, path, expires_at, .. } = Object::<SignInLink>::of(answer.body)?.read;
    let url = ctx.client.base().join(&path).map_err(|e| Misfit(format!("field `path`: {e}")))?;
    ctx.out.line(url.as_str())?;
    ctx.out.notes.say(&format!("signs one browser in as {token_name}, once, until {expires_at} ({})", age(expires_at)));
    Ok(())
}
