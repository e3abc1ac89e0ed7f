/** Some of everything, so that each page has something to show. Answers the address of every page, by a short name. */
export async function everyPage(api) {
  await api.image("debian", 60);
  await api.files("shop", "debian", 12, { labels: { tier: "web" } });
  await api.files("db", "debian", 2, { labels: { tier: "db" } });
  await api.done("/v1/snapshots", { name: "friday", select: { deployment: "shop" }, max_pause_ms: 10_000 });
  await api.done("/v1/deployments", { name: "shop-fork", source: { snapshot: "friday" }, runtime: "none" });
  const network = await api.post("/v1/networks", { name: "back", mode: "isolated", subnet_v4: "10.20.0.0/24" });
  const rules = [
    { direction: "in", protocol: "tcp", ports: "8000-8099", from: "192.0.2.0/24" },
    { direction: "in", protocol: "any", from: "web" },
    { direction: "out", protocol: "any" },
  ];
  const group = await api.post("/v1/security-groups", { name: "web", rules });
  await api.post("/v1/tokens", { name: "tenant-of-mail", role: "tenant", project: "mail" });
  const [deployment, snapshot, image] = await Promise.all(
    ["deployments/shop", "snapshots/friday", "images/debian"].map((path) => api.get(`/v1/${path}`)),
  );
  const first = async (path) => (await api.get(path)).items[0].id;
  const instance = await first("/v1/instances?deployment=shop");
  const node = await first("/v1/nodes");
  const operation = await first("/v1/operations?limit=1");
  const fork = await api.get("/v1/deployments/shop-fork");
  return {
    overview: "",
    deployments: "deployments",
    "deployments-new": "deployments/new?image=debian&count=4&runtime=none",
    deployment: `deployments/${deployment.id}`,
    "deployment-members": `deployments/${deployment.id}?tab=members`,
    "deployment-settings": `deployments/${deployment.id}?tab=settings`,
    "deployment-events": `deployments/${deployment.id}?tab=events`,
    "deployment-fork": `deployments/${fork.id}`,
    instances: "instances",
    instance: `instances/${instance}`,
    disks: "disks",
    disk: `disks/${await first("/v1/disks")}`,
    images: "images",
    "images-new": "images/new",
    image: `images/${image.id}`,
    "image-chunks": `images/${image.id}/chunks`,
    version: `versions/${image.newest_version}`,
    snapshots: "snapshots",
    snapshot: `snapshots/${snapshot.id}`,
    networks: "networks",
    network: `networks/${network.id}`,
    "security-groups": "security-groups",
    "security-group": `security-groups/${group.id}`,
    nodes: "nodes",
    node: `nodes/${node}`,
    pool: "pools/default",
    operations: "operations",
    operation: `operations/${operation}`,
    events: "events",
    tokens: "tokens",
    projects: "projects",
    "not-found": "nothing/here",
  };
}
