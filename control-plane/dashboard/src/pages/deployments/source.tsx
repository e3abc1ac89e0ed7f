import type { Deployment } from "../../api/deployments.ts";
import { ThingLink } from "../../ui/ThingLink.tsx";

/** What the members start from, as a text: `demo@2`, `before-upgrade`. */
export function sourceText({ source, source_name }: Deployment): string {
  const name = source_name ?? source.image ?? source.snapshot ?? String(source.version ?? "");
  return source.image && source.version ? `${name}@${source.version}` : name;
}

/** What the members start from, as a link. */
export function SourceLink({ deployment }: { deployment: Deployment }) {
  const { source, project } = deployment;
  const kind = source.snapshot ? "snapshot" : source.image ? "image" : "version";
  const id = source.snapshot ?? source.image ?? String(source.version ?? "");
  return <ThingLink kind={kind} id={id} name={sourceText(deployment)} project={project} />;
}
