//! `muster login`: check a controller and a token, then remember both.

use std::io::{BufRead, IsTerminal};

use tokio_util::sync::CancellationToken;

use crate::{
    args::{Global, Login},
    client::{Call, Client},
    failure::Failure,
    output::{self, Out, text},
    settings::{DEFAULT_PROFILE, Profile, Profiles, Secret, Settings, parse_url, read_secret},
    tls,
};

pub(super) async fn run(global: &Global, login: &Login, out: Out, interrupt: CancellationToken) -> Result<(), Failure> {
    let url = parse_url(&login.address)?;
    let mut profiles = Profiles::load()?;
    let ca_pem = match &global.ca {
        Some(path) => Some(std::fs::read_to_string(path).map_err(Failure::file(path))?),
        None if url.scheme() == "https" => trust(&url, login, out, &interrupt).await?,
        None => None,
    };
    let token = match &global.token {
        Some(text) => read_secret(text)?,
        None => ask_for_token(&interrupt).await?,
    };
    let project = global.project.clone();
    let settings = Settings {
        url,
        token: Some(token.clone()),
        ca_pem: ca_pem.clone(),
        project: project.clone(),
        retry_for: global.retry_for,
    };
    let client = Client::new(&settings, interrupt, out.notes)?;
    let me = client.get(&Call::to(&["v1", "me"])).await?;

    let name = global.profile.clone().unwrap_or_else(|| DEFAULT_PROFILE.to_owned());
    let profile = Profile { url: settings.url.to_string(), token: Some(token), project, ca_pem };
    profiles.profiles.insert(name.clone(), profile);
    profiles.current = Some(name);
    let path = profiles.save()?;
    out.thing(&me, || {
        format!(
            "signed in to {} as {} ({}); kept in {}",
            client.base(),
            text(&me, "/name"),
            text(&me, "/role"),
            path.display()
        )
    })
}

/// The CA to check this controller with: none when the system knows it already, else the one in its chain that has
/// the stated fingerprint, or that the person at the terminal recognises.
async fn trust(
    url: &reqwest::Url,
    login: &Login,
    out: Out,
    interrupt: &CancellationToken,
) -> Result<Option<String>, Failure> {
    let stated = login.ca_fingerprint.as_deref().map(tls::parse_fingerprint).transpose()?;
    if stated.is_none() {
        let bare = Settings { url: url.clone(), token: None, ca_pem: None, project: None, retry_for: None };
        let probe = Client::new(&bare, interrupt.clone(), out.notes)?;
        match probe.get(&Call::to(&["healthz"])).await {
            Err(Failure::Unreachable { hint, .. }) if !hint.is_empty() => {}
            Err(e @ (Failure::Unreachable { .. } | Failure::Interrupted(_))) => return Err(e),
            _ => return Ok(None),
        }
    }
    let chain = tls::shown_chain(url).await?;
    if let Some(stated) = stated {
        let found = chain.iter().find(|c| tls::fingerprint(c) == stated);
        return found.map(|c| Some(tls::to_pem(c))).ok_or_else(|| {
            let shown: Vec<_> = chain.iter().map(|c| tls::fingerprint(c)).collect();
            Failure::Usage(format!(
                "no certificate of {url} has the fingerprint {stated}; it shows\n  {}\n  give its CA with --ca FILE",
                shown.join("\n  ")
            ))
        });
    }
    let Some(last) = chain.last() else {
        return Err(Failure::Usage(format!("{url} shows no certificate; give its CA with --ca FILE")));
    };
    let print = tls::fingerprint(last);
    let question = format!("{url} is certified by a CA this machine does not know, SHA-256\n  {print}\nTrust it?");
    let answer = tokio::select! {
        answer = output::ask(&question) => answer,
        () = interrupt.cancelled() => return Err(Failure::Interrupted(false)),
    };
    match answer {
        Some(true) => Ok(Some(tls::to_pem(last))),
        Some(false) => Err(Failure::Declined),
        None => Err(Failure::Usage(format!(
            "{url} is certified by a CA this machine does not know; compare and repeat with\n  --ca-fingerprint {print}"
        ))),
    }
}

async fn ask_for_token(interrupt: &CancellationToken) -> Result<Secret, Failure> {
    let question = tokio::task::spawn_blocking(|| {
        if std::io::stdin().is_terminal() {
            eprint!("Token (not shown): ");
            return console::Term::stderr().read_secure_line();
        }
        let mut line = String::new();
        std::io::stdin().lock().read_line(&mut line).map(|_| line)
    });
    let line = tokio::select! {
        line = question => line.map_err(std::io::Error::other).and_then(|line| line),
        () = interrupt.cancelled() => return Err(Failure::Interrupted(false)),
    };
    let secret = Secret::new(line.map_err(Failure::file("-"))?);
    match secret.reveal().is_empty() {
        true => Err(Failure::Usage("no token was given: --token, MUSTER_TOKEN, or on standard input".into())),
        false => Ok(secret),
    }
}
