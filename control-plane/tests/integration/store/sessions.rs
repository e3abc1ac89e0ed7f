//! Checks of sessions and sign-in links.

use muster_api::{ClusterId, SessionId, SignInLinkId, TokenId, node_protocol::Incarnation, token::Role};
use muster_controller::store::{
    StoreError, Tx,
    cluster::{self, Cluster},
    sessions::{self, SessionRow},
    sign_in_links::{self, SignInLinkRow},
    tokens::{self, TokenRow},
};

use super::{Fresh, checks::Check};

pub(crate) const ALL: &[(&str, Check)] = &[
    ("sessions_and_links_go_with_their_token", |fresh| Box::pin(sessions_and_links_go_with_their_token(fresh))),
    ("an_older_copy_of_the_database_has_no_session_and_no_link", |fresh| {
        Box::pin(an_older_copy_of_the_database_has_no_session_and_no_link(fresh))
    }),
    ("sessions_of_a_token_are_kept_up_to_a_number", |fresh| {
        Box::pin(sessions_of_a_token_are_kept_up_to_a_number(fresh))
    }),
];

async fn token(tx: &mut Tx, name: &str) -> Result<TokenId, StoreError> {
    let row = TokenRow {
        id: TokenId::generate(),
        name: name.to_owned(),
        role: Role::Admin,
        project: None,
        secret_sha256: "ab".repeat(32),
        created_at: tx.now(),
        created_by: "test".to_owned(),
        expires_at: tx.now().plus_ms(60_000),
        uses_left: None,
        seq: tx.next_seq().await?,
    };
    tokens::insert(tx, &row).await?;
    Ok(row.id)
}

async fn session(tx: &mut Tx, token: TokenId) -> Result<SessionRow, StoreError> {
    let row = SessionRow {
        id: SessionId::generate(),
        token,
        token_name: "t".to_owned(),
        role: Role::Admin,
        project: None,
        secret_sha256: "cd".repeat(32),
        created_at: tx.now(),
        expires_at: tx.now().plus_ms(60_000),
        last_used_at: None,
        address: None,
        agent: Some("Firefox".to_owned()),
        seq: tx.next_seq().await?,
    };
    sessions::insert(tx, &row).await?;
    Ok(row)
}

async fn link(tx: &mut Tx, token: TokenId) -> Result<SignInLinkId, StoreError> {
    let (id, now) = (SignInLinkId::generate(), tx.now());
    let secret_sha256 = "ef".repeat(32);
    let row =
        SignInLinkRow { id, token, session: None, secret_sha256, created_at: now, expires_at: now.plus_ms(60_000) };
    sign_in_links::insert(tx, &row).await?;
    Ok(id)
}

async fn sessions_and_links_go_with_their_token(fresh: Fresh) {
    let store = fresh.open().await;
    let done = store.run_tx("t", async |tx| {
        let (gone, stays) = (token(tx, "gone").await?, token(tx, "stays").await?);
        let (with_it, other) = (session(tx, gone).await?, session(tx, stays).await?);
        let (its_link, link_used) = (link(tx, gone).await?, link(tx, stays).await?);
        assert_eq!(sessions::list(tx, 0, None, 9).await?.len(), 2);
        assert_eq!(sessions::list(tx, 0, Some(gone), 9).await?[0].id, with_it.id);
        assert!(tokens::delete(tx, gone).await?);
        assert!(sessions::load(tx, with_it.id).await?.is_none());
        assert!(sign_in_links::take(tx, its_link).await?.is_none());
        assert_eq!(sign_in_links::take(tx, link_used).await?.map(|link| link.token), Some(stays));
        assert!(sign_in_links::take(tx, link_used).await?.is_none(), "it is used up");
        // The newest use counts, whatever comes later.
        let (early, late) = (tx.now(), tx.now().plus_ms(5));
        for at in [late, early] {
            sessions::used(tx, other.id, at).await?;
        }
        assert_eq!(sessions::load(tx, other.id).await?.and_then(|row| row.last_used_at), Some(late));
        assert_eq!((sessions::count(tx).await?, sessions::forget_old(tx).await?), (1, 0));
        Ok::<_, StoreError>((stays, other.id))
    });
    let (stays, other) = done.await.unwrap();
    fresh.clock.advance_ms(60_000);
    let done = store.run_tx("t", async |tx| {
        assert_eq!((sessions::count(tx).await?, sessions::list(tx, 0, Some(stays), 9).await?.len()), (0, 0));
        assert_eq!(sessions::forget_old(tx).await?, 1);
        assert!(sessions::load(tx, other).await?.is_none());
        Ok::<_, StoreError>(())
    });
    done.await.unwrap();
    let homeless = store.run_tx("t", async |tx| session(tx, TokenId::generate()).await).await;
    assert!(homeless.is_err(), "a session without a token");
}

async fn an_older_copy_of_the_database_has_no_session_and_no_link(fresh: Fresh) {
    let store = fresh.open().await;
    let done = store.run_tx("t", async |tx| {
        let incarnation = Incarnation { number: 1, random: 1 };
        cluster::insert(tx, &Cluster { id: ClusterId::generate(), ca_sha256: "ab".repeat(32), incarnation }).await?;
        let token = token(tx, "t").await?;
        let (session, link) = (session(tx, token).await?, link(tx, token).await?);
        cluster::begin_incarnation(tx, Incarnation { number: 2, random: 2 }).await?;
        // They may have been ended, or used, since the copy was made.
        assert!(sessions::load(tx, session.id).await?.is_none());
        assert!(sign_in_links::take(tx, link).await?.is_none());
        assert!(tokens::load(tx, token).await?.is_some());
        Ok::<_, StoreError>(())
    });
    done.await.unwrap();
}

async fn sessions_of_a_token_are_kept_up_to_a_number(fresh: Fresh) {
    let store = fresh.open().await;
    let done = store.run_tx("t", async |tx| {
        let (many, few) = (token(tx, "many").await?, token(tx, "few").await?);
        session(tx, few).await?;
        let mut ids = Vec::new();
        for _ in 0..5 {
            ids.push(session(tx, many).await?.id);
            sessions::delete_oldest(tx, many, 3).await?;
        }
        let kept: Vec<_> = sessions::list(tx, 0, Some(many), 9).await?.iter().map(|row| row.id).collect();
        assert_eq!(kept, ids[2..]);
        assert_eq!(sessions::count(tx).await?, 4);
        Ok::<_, StoreError>(())
    });
    done.await.unwrap();
}
