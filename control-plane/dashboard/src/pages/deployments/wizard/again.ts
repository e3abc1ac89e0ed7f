/** The search part of the wizard that makes another deployment like one that is there. Pure; tested in again.test.ts. */
import type { Deployment } from "../../../api/deployments.ts";
import { sizeText } from "../../../ui/size.ts";
import { labelTexts } from "../labels.ts";
import { protectForm, protectOf } from "../protection/protect-form.ts";
import { cardsLike } from "./cards.ts";
import { disksLike } from "./disks.ts";
import { emptyForm, type Form } from "./form.ts";

/** The processors and memory of each member, for a fork: guests expect the machine that they ran on. */
export function sizesOf(deployment: Deployment | undefined): Partial<Pick<Form, "cpus" | "memory">> {
  if (deployment === undefined || deployment.runtime === "none") return {};
  return { cpus: String(deployment.cpus), memory: sizeText(deployment.memory_bytes) };
}

/** The firmware and TPM of each member. Disk files have neither. */
function machineLike({ firmware, tpm, runtime, source }: Deployment): Partial<Pick<Form, "firmware" | "tpm">> {
  if (runtime === "none") return {};
  // A fork without an answer has what its source has.
  return { firmware, tpm: tpm ? "yes" : source.snapshot ? "no" : "usual" };
}

export function searchFrom(deployment: Deployment): Partial<Form> {
  const { source, placement, ready_when: ready } = deployment;
  const text = (value: string | number | null | undefined) => (value ? String(value) : "");
  const form = {
    ...emptyForm,
    in: deployment.project === "default" ? "" : deployment.project,
    image: source.image ? (deployment.source_name ?? source.image) : "",
    number: source.image ? text(source.version) : "",
    snapshot: source.snapshot ? (deployment.source_name ?? source.snapshot) : "",
    version: source.image || source.snapshot ? "" : text(source.version),
    count: text(deployment.count),
    least: deployment.min_count === deployment.count ? "" : text(deployment.min_count),
    cpus: text(deployment.cpus),
    memory: sizeText(deployment.memory_bytes),
    further: disksLike(deployment),
    ...machineLike(deployment),
    runtime: deployment.runtime,
    probe: ready.probe,
    marker: ready.marker ?? "",
    timeout: ready.timeout_s === 300 ? "" : text(ready.timeout_s),
    late: deployment.on_ready_timeout,
    back: deployment.on_host_start,
    ...cardsLike(deployment),
    policy: placement.policy ?? "spread",
    most: text(placement.max_per_node),
    zone: placement.zones ?? [],
    node: placement.nodes ?? [],
    label: labelTexts(deployment.labels),
    ...protectForm(protectOf(deployment)),
  };
  // The URL says only what differs.
  return Object.fromEntries(
    Object.entries(form).filter(([field, value]) => String(value) !== String(emptyForm[field as keyof Form])),
  );
}
