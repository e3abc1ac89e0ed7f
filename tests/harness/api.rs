//! A client of the REST API that checks answers as tests need it.

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
    /// Bearer token of every request.
    pub token: String,
}

/// An answer of the controller.
#[derive(Debug)]
pub struct Answer {
    /// HTTP status code.
    pub status: u16,
    /// HTTP headers.
    pub headers: reqwest::header::HeaderMap,
    /// JSON of the body; null where there was none.
    pub body: Value,
}

impl Answer {
    /// The body as a `T`.
    ///
    /// # Panics
    /// When the answer is not a success or is not a `T`. The message has the whole answer.
    #[must_use]
    pub fn ok<T: DeserializeOwned>(self) -> T {
        assert!((200..300).contains(&self.status), "expected a success, got {} {:#}", self.status, self.body);
        serde_json::from_value(self.body.clone()).unwrap_or_else(|e| panic!("{e} in {:#}", self.body))
    }

    /// The problem document of an answer that must have this status and code.
    ///
    /// # Panics
    /// When status or code differ.
    #[must_use]
    pub fn problem(self, status: u16, code: &str) -> Problem {
        assert_eq!((self.status, self.body["code"].as_str()), (status, Some(code)), "{:#}", self.body);
        serde_json::from_value(self.body.clone()).unwrap_or_else(|e| panic!("{e} in {:#}", self.body))
    }
}

impl Api {
    /// A client that trusts only the CA in `ca_pem`.
    #[must_use]
    pub fn new(url: &str, ca_pem: &[u8], token: &str) -> Self {
        let ca = reqwest::Certificate::from_pem(ca_pem).expect("the cluster's CA");
        let http = reqwest::Client::builder().tls_certs_only([ca]).build().expect("an HTTP client");
        Self { http, url: url.to_owned(), token: token.trim().to_owned() }
    }

    /// A client of the same controller with another token.
    #[must_use]
    pub fn with_token(&self, token: &str) -> Self {
        Self { token: token.to_owned(), ..self.clone() }
    }

    /// Builds a request with the token; [`Self::send`] sends it.
    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, format!("{}{path}", self.url)).bearer_auth(&self.token)
    }

    /// Sends a request. Every answer is `Ok`, also one that reports a problem.
    ///
    /// # Errors
    /// When the connection broke before the answer was there.
    pub async fn try_send(&self, request: reqwest::RequestBuilder) -> Result<Answer, reqwest::Error> {
        let answer = request.send().await?;
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        let text = answer.text().await?;
        Ok(Answer { status, headers, body: serde_json::from_str(&text).unwrap_or(Value::Null) })
    }

    /// Sends a request and expects an answer.
    ///
    /// # Panics
    /// When the connection broke.
    pub async fn send(&self, request: reqwest::RequestBuilder) -> Answer {
        self.try_send(request).await.expect("an answer")
    }

    /// Sends GET.
    pub async fn get(&self, path: &str) -> Answer {
        self.send(self.request(Method::GET, path)).await
    }

    /// Sends POST with a JSON body.
    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.send(self.request(Method::POST, path).json(&body)).await
    }

    /// Sends DELETE.
    pub async fn delete(&self, path: &str) -> Answer {
        self.send(self.request(Method::DELETE, path)).await
    }

    /// Creates image `name` and uploads the file as its first version. Answers the version.
    pub async fn import(&self, name: &str, file: &Path) -> Value {
        let _: Value = self.post("/v1/images", json!({ "name": name })).await.ok();
        let bytes = tokio::fs::read(file).await.expect("read the image");
        let put = self.request(Method::PUT, &format!("/v1/images/{name}/content")).body(bytes);
        self.send(put).await.ok()
    }

    /// Waits until the operation is final and answers it.
    pub async fn wait(&self, operation: &str, limit: Duration) -> Operation {
        eventually(&format!("operation {operation}"), limit, async || self.final_state(operation).await).await
    }

    /// The operation once it is final. An error says how far it is; it comes after five seconds.
    pub(crate) async fn final_state(&self, operation: &str) -> Result<Operation, String> {
        let request = self.request(Method::GET, &format!("/v1/operations/{operation}?wait=5s"));
        let now: Operation = self.try_send(request).await.map_err(|e| e.to_string())?.ok();
        if now.state.is_final() { Ok(now) } else { Err(format!("{now:?}")) }
    }

    /// Posts slow work and waits until it has succeeded.
    pub async fn done(&self, path: &str, body: Value, limit: Duration) -> Operation {
        let operation: Operation = self.post(path, body).await.ok();
        let last = self.wait(&operation.id.to_string(), limit).await;
        assert_eq!(last.state, muster_api::operation::OperationState::Succeeded, "{last:#?}");
        last
    }

    /// Starts a deployment of `count` disk files (runtime none) and waits until all are ready.
    pub async fn deploy_files(&self, name: &str, image: &str, count: u64) -> Vec<Instance> {
        let body = json!({ "name": name, "source": { "image": image }, "count": count, "runtime": "none" });
        self.done("/v1/deployments", body, Duration::from_secs(60)).await;
        self.instances(name).await
    }

    /// The members of a deployment, sorted by their numbers.
    pub async fn instances(&self, deployment: &str) -> Vec<Instance> {
        let mut all = self.list::<Instance>(&format!("/v1/instances?deployment={deployment}&limit=1000")).await;
        all.sort_by_key(|i| i.number);
        all
    }

    /// The items of all pages of a list.
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

    /// Reads a deployment by its name.
    pub async fn deployment(&self, name: &str) -> Deployment {
        self.get(&format!("/v1/deployments/{name}")).await.ok()
    }

    /// Reads a snapshot by its name.
    pub async fn snapshot(&self, name: &str) -> Snapshot {
        self.get(&format!("/v1/snapshots/{name}")).await.ok()
    }

    /// Downloads all bytes of a version.
    pub async fn content(&self, version: &str) -> Vec<u8> {
        let answer =
            self.request(Method::GET, &format!("/v1/versions/{version}/content")).send().await.expect("an answer");
        assert_eq!(answer.status().as_u16(), 200);
        answer.bytes().await.expect("the whole content").to_vec()
    }
}
