/** The forms that make and change a network: what was typed, and the request that it means. Pure; tested beside it. */
import type { CreateNetwork, Network, NetworkMode, PatchNetwork } from "../../api/networks.ts";

export interface NetworkForm {
  name: string;
  mode: NetworkMode;
  bridge: string;
  subnet: string;
  subnetV6: string;
  gateway: string;
  dns: string[];
  mtu: string;
}
export type NetworkField = keyof NetworkForm;

export const emptyNetwork: NetworkForm = {
  name: "",
  mode: "nat",
  bridge: "",
  subnet: "",
  subnetV6: "",
  gateway: "",
  dns: [],
  mtu: "",
};

/** What is in the form that changes a network. */
export function formOf({ name, mode, dns, mtu }: Network): NetworkForm {
  return { ...emptyNetwork, name, mode, dns, mtu: String(mtu) };
}

/** What cannot be sent, by field. The largest packet is a number; all else is for the controller to judge. */
export function problemsOf({ mtu }: NetworkForm): Partial<Record<NetworkField, string>> {
  return /^\d{0,5}$/.test(mtu.trim()) ? {} : { mtu: "Write a whole number of bytes." };
}

/** The request that makes the network. What is left empty is for the controller to choose. */
export function createOf(form: NetworkForm): CreateNetwork {
  const text = (key: keyof CreateNetwork, value: string) => (value.trim() === "" ? {} : { [key]: value.trim() });
  const inner = form.mode !== "bridge";
  return {
    ...text("name", form.name),
    ...(form.mode === "nat" ? {} : { mode: form.mode }),
    ...(inner ? {} : text("bridge", form.bridge)),
    ...(inner ? text("subnet_v4", form.subnet) : {}),
    ...(inner ? text("subnet_v6", form.subnetV6) : {}),
    ...(inner ? text("gateway", form.gateway) : {}),
    ...(inner && form.dns.length > 0 ? { dns: form.dns } : {}),
    ...(form.mtu.trim() === "" ? {} : { mtu: Number(form.mtu) }),
  };
}

/** What changes in the network: nothing that is as it was. An empty largest packet means the default. */
export function patchOf(form: NetworkForm, before: Network): PatchNetwork {
  const mtu = form.mtu.trim() === "" ? null : Number(form.mtu);
  return {
    ...(form.name.trim() === before.name ? {} : { name: form.name.trim() }),
    ...(form.dns.join(" ") === before.dns.join(" ") ? {} : { dns: form.dns.length === 0 ? null : form.dns }),
    ...(mtu === before.mtu ? {} : { mtu }),
  };
}

const fields: Record<string, NetworkField> = {
  name: "name",
  mode: "mode",
  bridge: "bridge",
  subnet_v4: "subnet",
  subnet_v6: "subnetV6",
  gateway: "gateway",
  dns: "dns",
  mtu: "mtu",
};

/** The field that an error of the API is about. */
export function networkFieldOf(pointer: string): NetworkField | undefined {
  return fields[pointer.split("/")[1] ?? ""];
}

/** The line of `muster network create` that makes the same call. */
export function commandFor(request: CreateNetwork, project: string | undefined): string {
  const words = ["muster"];
  if (project !== undefined && project !== "default") words.push("--project", project);
  words.push("network create", request.name ?? "NAME");
  const add = (flag: string, value: string | number | null | undefined) => {
    if (value !== null && value !== undefined) words.push(flag, String(value));
  };
  add("--mode", request.mode);
  add("--bridge", request.bridge);
  add("--subnet", request.subnet_v4);
  add("--subnet-v6", request.subnet_v6);
  add("--gateway", request.gateway);
  for (const server of request.dns ?? []) add("--dns", server);
  add("--mtu", request.mtu);
  return words.join(" ");
}
