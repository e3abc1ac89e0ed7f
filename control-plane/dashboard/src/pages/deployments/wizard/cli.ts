/** A request of the wizard as a command line. Pure; tested in cli.test.ts. */
import type { CreateDeployment } from "../../../api/deployments.ts";
import { sizeText } from "../../../ui/size.ts";
import { labelTexts } from "../labels.ts";
import { protectOf } from "../protection/protect-form.ts";
import { diskSourceText } from "./disks.ts";
import { userDataFile } from "./seed.ts";

/** A word as a shell takes it. */
export function quote(word: string): string {
  return /^[A-Za-z0-9_@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}

/** The line of `muster deploy` that makes the same call, in parts: a line may be broken between them. */
export function commandFor(request: CreateDeployment, project: string | undefined): string[] {
  const { source, ready, placement } = request;
  const words: string[] = [];
  const add = (flag: string, value: string | number | null | undefined) => {
    if (value !== null && value !== undefined) words.push(`${flag} ${quote(String(value))}`);
  };
  words.push("muster");
  if (project !== undefined && project !== "default") add("--project", project);
  words.push(`deploy ${quote(request.name ?? "NAME")}`);
  if (source.snapshot) {
    add("--snapshot", source.snapshot);
    if (source.allow_missing) words.push("--allow-missing");
  } else if (source.image) {
    add("--image", source.version ? `${source.image}@${source.version}` : source.image);
  } else if (source.version) add("--version", String(source.version));
  add("--count", request.count);
  add("--min-count", request.min_count);
  add("--cpus", request.cpus);
  add("--memory", request.memory_bytes ? sizeText(request.memory_bytes) : null);
  add("--disk-size", request.disk_bytes ? sizeText(request.disk_bytes) : null);
  for (const { name, size_bytes, source } of request.disks ?? []) {
    add("--disk", `${name}=${sizeText(size_bytes)}${source ? `,source=${diskSourceText(source)}` : ""}`);
  }
  add("--firmware", request.firmware);
  if (typeof request.tpm === "boolean") words.push(request.tpm ? "--tpm" : "--tpm=no");
  add("--runtime", request.runtime);
  if (ready && ready.probe !== "running") add("--ready", ready.probe?.replace("_", "-"));
  add("--ready-marker", ready?.marker);
  add("--ready-timeout", ready?.timeout_s ? `${ready.timeout_s}s` : null);
  add("--on-ready-timeout", request.on_ready_timeout);
  add("--on-host-start", request.on_host_start);
  words.push(...cardWords(request.nics ?? undefined));
  if (placement?.policy === "pack") words.push("--pack");
  for (const zone of placement?.zones ?? []) add("--zone", zone);
  for (const node of placement?.nodes ?? []) add("--node", node);
  add("--max-per-node", placement?.max_per_node);
  const protect = protectOf(request);
  if (protect !== undefined) {
    add("--protect-every", protect.every);
    for (const rule of ["last", "hourly", "daily", "weekly"] as const) add(`--keep-${rule}`, protect.keep?.[rule]);
  }
  add("--deadline", request.deadline_s ? `${request.deadline_s}s` : null);
  for (const label of labelTexts(request.labels ?? {})) add("--label", label);
  for (const key of request.ssh_keys ?? []) add("--ssh-key", key);
  if (request.ssh_keys?.length === 0) words.push("--no-ssh-keys");
  // The command line reads it from a file; an empty one says that there is none.
  if (request.user_data === "") add("--user-data", "/dev/null");
  else if (request.user_data) add("--user-data", userDataFile);
  return words;
}

type Nics = NonNullable<CreateDeployment["nics"]>;

/** The flags for network cards. The groups are those of all cards, the ports those of the first. */
function cardWords(nics: Nics | undefined): string[] {
  if (nics === undefined) return [];
  const [first] = nics;
  if (first === undefined) return ["--no-network"];
  return [
    ...nics.map(({ network, address }) => `--network ${quote(address ? `${network}:${address}` : network)}`),
    ...(first.security_groups ?? []).map((group) => `--security-group ${quote(group)}`),
    ...(first.ports ?? []).map(
      ({ port, node_port, protocol }) =>
        `--publish ${node_port ? `${node_port}:` : ""}${port}${protocol === "udp" ? "/udp" : ""}`,
    ),
  ];
}

/** Whether a command line cannot say all of a request: cards with groups of their own, ports of another card than the first. */
export function isUnsayable({ nics }: CreateDeployment): boolean {
  const [first, ...others] = nics ?? [];
  const groups = (nic: Nics[number] | undefined) => String(nic?.security_groups ?? []);
  return others.some((nic) => (nic.ports ?? []).length > 0 || groups(nic) !== groups(first));
}
