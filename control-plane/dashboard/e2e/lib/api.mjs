/** Calls of the API with a token, to prepare what a proof needs and to check what a page did. */
import { setting } from "./settings.mjs";

export class Api {
  constructor(token = setting("MUSTER_TOKEN")) {
    this.url = new URL(setting("MUSTER_URL")).origin;
    this.token = token;
  }

  /** One call. Answers the body, and fails with the controller's words if the call is refused. */
  async call(method, path, body) {
    const response = await fetch(this.url + path, {
      method,
      headers: {
        Authorization: `Bearer ${this.token}`,
        ...(body === undefined ? {} : { "Content-Type": "application/json" }),
      },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
    const text = await response.text();
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${text}`);
    return text === "" ? undefined : JSON.parse(text);
  }

  get(path) {
    return this.call("GET", path);
  }

  post(path, body = {}) {
    return this.call("POST", path, body);
  }

  /** Starts slow work and waits until it has succeeded. */
  async done(path, body) {
    let operation = await this.post(path, body);
    const until = Date.now() + 120_000;
    while (["pending", "running", "cancelling"].includes(operation.state)) {
      if (Date.now() > until) throw new Error(`not done within two minutes: ${JSON.stringify(operation)}`);
      operation = await this.get(`/v1/operations/${operation.id}?wait=30s`);
    }
    if (operation.state !== "succeeded") throw new Error(`it failed: ${JSON.stringify(operation)}`);
    return operation;
  }

  /** A link that signs a browser in once, as the owner of the token. */
  async signInLink() {
    return this.url + (await this.post("/v1/session/link")).path;
  }

  /** The API as a tenant of a project, which is made by that. */
  async tenantOf(project) {
    const { token } = await this.post("/v1/tokens", { role: "tenant", project });
    return new Api(token);
  }

  /** An image of so many chunks. Every third is zeros, and it boots nothing. */
  async image(name, chunks = 1) {
    await this.post("/v1/images", { name });
    const bytes = new Uint8Array(chunks * 262_144);
    for (let chunk = 0; chunk < chunks; chunk += 1) {
      if (chunk % 3 < 2) crypto.getRandomValues(bytes.subarray(chunk * 262_144, chunk * 262_144 + 65_536));
    }
    const response = await fetch(`${this.url}/v1/images/${name}/content?format=raw`, {
      method: "PUT",
      headers: { Authorization: `Bearer ${this.token}` },
      body: bytes,
    });
    if (!response.ok) throw new Error(`the image ${name}: ${response.status} ${await response.text()}`);
  }

  /** A deployment of disk files, ready. */
  async files(name, image, count, more = {}) {
    return this.done("/v1/deployments", { name, source: { image }, count, runtime: "none", ...more });
  }
}
