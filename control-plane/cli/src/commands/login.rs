//! `muster login`: checks a controller and a token, then keeps both in a profile.

use std::io::{BufRead, IsTerminal};

use muster_api::summary::Me;
use reqwest::Url;
use tokio_util::sync::CancellationToken;

use crate::{
    args::{Global, Login},
    cells::word,
    client::{Call, Client},
    failure::{Failure, Hint},
    output::{self, Out},
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
    out.object(&me, |me: &Me| {
        let (base, role) = (client.base(), word(&me.role));
        format!("signed in to {base} as {} ({role}); the profile is in {}", me.name, path.display())
    })
}

/// Finds the CA to check this controller with; none if the system trusts the controller already. It must be in the
/// chain that the controller shows, and either have the stated fingerprint or be accepted by the person at the terminal.
async fn trust(url: &Url, login: &Login, out: Out, interrupt: &CancellationToken) -> Result<Option<String>, Failure> {
    let stated = login.ca_fingerprint.as_deref().map(tls::parse_fingerprint).transpose()?;
    if stated.is_none() && is_trusted(url, out, interrupt).await? {
        return Ok(None);
    }
    let chain = tls::shown_chain(url).await?;
    let ca = match stated {
        Some(stated) => find_stated(url, &chain, &stated)?,
        None => ask_about_last(url, &chain, interrupt).await?,
    };
    Ok(Some(tls::to_pem(ca)))
}

/// Whether the system's CAs vouch for the controller.
async fn is_trusted(url: &Url, out: Out, interrupt: &CancellationToken) -> Result<bool, Failure> {
    let settings = Settings { url: url.clone(), token: None, ca_pem: None, project: None, retry_for: None };
    let probe = Client::new(&settings, interrupt.clone(), out.notes)?;
    match probe.get(&Call::to(&["healthz"])).await {
        Err(Failure::Unreachable { hint: Hint::UnknownCa, .. }) => Ok(false),
        Err(e @ (Failure::Unreachable { .. } | Failure::Interrupted(_))) => Err(e),
        _ => Ok(true),
    }
}

fn find_stated<'a>(url: &Url, chain: &'a [Vec<u8>], stated: &str) -> Result<&'a [u8], Failure> {
    let shown: Vec<_> = chain.iter().map(|c| tls::fingerprint(c)).collect();
    match chain.iter().zip(&shown).find(|(_, print)| *print == stated) {
        Some((ca, _)) => Ok(ca),
        None => Err(Failure::Usage(format!(
            "no certificate of {url} has the fingerprint {stated}; it shows\n  {}\n  give its CA with --ca FILE",
            shown.join("\n  ")
        ))),
    }
}

async fn ask_about_last<'a>(
    url: &Url,
    chain: &'a [Vec<u8>],
    interrupt: &CancellationToken,
) -> Result<&'a [u8], Failure> {
    let Some(last) = chain.last() else {
        return Err(Failure::Usage(format!("{url} shows no certificate; give its CA with --ca FILE")));
    };
    let print = tls::fingerprint(last);
    let about = format!("{url} has a certificate of a CA that this machine does not know");
    let question = format!("{about}, SHA-256\n  {print}\nTrust it?");
    if !output::can_ask() {
        let text = format!("{about}; compare its fingerprint, then repeat with\n  --ca-fingerprint {print}");
        return Err(Failure::Usage(text));
    }
    let trusted = tokio::select! {
        answer = output::ask(&question) => answer,
        () = interrupt.cancelled() => return Err(Failure::Interrupted(false)),
    };
    if trusted { Ok(last) } else { Err(Failure::Declined) }
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
        true => {
            Err(Failure::Usage("no token was given; give it with --token, MUSTER_TOKEN or on standard input".into()))
        }
        false => Ok(secret),
    }
}
