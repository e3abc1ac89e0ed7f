//! REST as a user speaks it.

use std::{path::Path, time::Duration};

use muster_api::{Problem, deployment::Deployment, instance::Instance, operation::Operation, snapshot::Snapshot};
use reqwest::Method;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::eventually;

/// A client of one controller with one token.
#[derive(Clone)]
pub struct Api {
    http: reqwest::Client,
    /// `https://IP:PORT`
    pub url: String,
    /// The bearer token.
    pub token: String,
}

/// An answer: status, headers and JSON (null where there was none).
#[derive(Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Headers.
    pub headers: reqwest::header::HeaderMap,
    /// Body.
    pub body: Value,
}

impl Answer {
    /// The body as a `T`.
    ///
    /// # Panics
    /// When the answer is no success, or does not fit: with the whole answer.
    #[must_use]
    pub fn ok<T: DeserializeOwned>(self) -> T {
        assert!((200..300).contains(&self.status), "expected a success, got {} {:#}", self.status, self.body);
        serde_json::from_value(self.body.clone()).unwrap_or_else(|e| panic!("{e} in {:#}", self.body))
    }

    /// The problem document, after checking its status and code.
    ///
    /// # Panics
    /// When the answer is another one.
    #[must_use]
    pub fn problem(self, status: u16, code: &str) -> Problem {
        assert_eq!((self.status, self.body["code"].as_str()), (status, Some(code)), "{:#}", self.body);
        serde_json::from_value(self.body.clone()).unwrap_or_else(|e| panic!("{e} in {:#}", self.body))
    }
}

impl Api {
    /// A client that trusts the CA in `ca_pem`.
    #[must_use]
    pub fn new(url: &str, ca_pem: &[u8], token: &str) -> Self {
        let ca = reqwest::Certificate::from_pem(ca_pem).expect("the cluster's CA");
        let http = reqwest::Client::builder().tls_certs_only([ca]).build().expect("an HTTP client");
        Self { http, url: url.to_owned(), token: token.trim().to_owned() }
    }

    /// The same controller with another token.
    #[must_use]
    pub fn with_token(&self, token: &str) -> Self {
        Self { token: token.to_owned(), ..self.clone() }
    }

    /// A request to be sent.
    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, format!("{}{path}", self.url)).bearer_auth(&self.token)
    }

    /// Sends a request; `Err` only when no answer came.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn try_send(&self, request: reqwest::RequestBuilder) -> Result<Answer, reqwest::Error> {
        let answer = request.send().await?;
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        let text = answer.text().await?;
        Ok(Answer { status, headers, body: serde_json::from_str(&text).unwrap_or(Value::Null) })
    }

    /// Sends a request.
    ///
    /// # Panics
    /// When no answer came.
    pub async fn send(&self, request: reqwest::RequestBuilder) -> Answer {
        self.try_send(request).await.expect("an answer")
    }

    /// GET.
    pub async fn get(&self, path: &str) -> Answer {
        self.send(self.request(Method::GET, path)).await
    }

    /// POST with a JSON body.
    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.send(self.request(Method::POST, path).json(&body)).await
    }

    /// DELETE.
    pub async fn delete(&self, path: &str) -> Answer {
        self.send(self.request(Method::DELETE, path)).await
    }

    /// Creates image `name` from the file.
    pub async fn import(&self, name: &str, file: &Path) -> Value {
        let _: Value = self.post("/v1/images", json!({ "name": name })).await.ok();
        let bytes = tokio::fs::read(file).await.expect("read the image");
        let put = self.request(Method::PUT, &format!("/v1/images/{name}/content")).body(bytes);
        self.send(put).await.ok()
    }

    /// Waits until the operation is final and answers it.
    pub async fn wait(&self, operation: &str, limit: Duration) -> Operation {
        eventually(&format!("operation {operation}"), limit, async || {
            let request = self.request(Method::GET, &format!("/v1/operations/{operation}?wait=5s"));
            let now: Operation = self.try_send(request).await.map_err(|e| e.to_string())?.ok();
            if now.state.is_final() { Ok(now) } else { Err(format!("{now:?}")) }
        })
        .await
    }

    /// Posts slow work and waits until it has succeeded.
    pub async fn done(&self, path: &str, body: Value, limit: Duration) -> Operation {
        let operation: Operation = self.post(path, body).await.ok();
        let last = self.wait(&operation.id.to_string(), limit).await;
        assert_eq!(last.state, muster_api::operation::OperationState::Succeeded, "{last:#?}");
        last
    }

    /// A deployment of `count` disk files (runtime none), ready.
    pub async fn deploy_files(&self, name: &str, image: &str, count: u64) -> Vec<Instance> {
        let body = json!({ "name": name, "source": { "image": image }, "count": count, "runtime": "none" });
        self.done("/v1/deployments", body, Duration::from_secs(60)).await;
        self.instances(name).await
    }

    /// The members of a deployment, by number.
    pub async fn instances(&self, deployment: &str) -> Vec<Instance> {
        let mut all = self.list::<Instance>(&format!("/v1/instances?deployment={deployment}&limit=1000")).await;
        all.sort_by_key(|i| i.number);
        all
    }

    /// All pages of a list.
    pub async fn list<T: DeserializeOwned>(&self, path: &str) -> Vec<T> {
        let (mut items, mut token) = (Vec::new(), String::new());
        loop {
            let page: muster_api::Page<T> = self.get(&format!("{path}{token}")).await.ok();
            items.extend(page.items);
            match page.next_page_token {
                Some(next) => token = format!("{}page_token={next}", if path.contains('?') { '&' } else { '?' }),
                None => return items,
            }
        }
    }

    /// One deployment.
    pub async fn deployment(&self, name: &str) -> Deployment {
        self.get(&format!("/v1/deployments/{name}")).await.ok()
    }

    /// One snapshot.
    pub async fn snapshot(&self, name: &str) -> Snapshot {
        self.get(&format!("/v1/snapshots/{name}")).await.ok()
    }

    /// Bytes of a version.
    pub async fn content(&self, version: &str) -> Vec<u8> {
        let answer =
            self.request(Method::GET, &format!("/v1/versions/{version}/content")).send().await.expect("an answer");
        assert_eq!(answer.status().as_u16(), 200);
        answer.bytes().await.expect("the whole content").to_vec()
    }
}
