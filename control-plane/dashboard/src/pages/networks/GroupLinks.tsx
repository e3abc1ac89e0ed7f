import { Fragment } from "react";
import type { Nic } from "../../api/networks.ts";
import { ThingLink } from "../../ui/ThingLink.tsx";

/** The security groups of a card, each as a link. */
export function GroupLinks({
  nic,
  project,
}: {
  nic: Pick<Nic, "security_groups" | "security_group_names">;
  project: string;
}) {
  if (nic.security_groups.length === 0) return "none";
  return nic.security_groups.map((id, n) => (
    <Fragment key={id}>
      {n > 0 && ", "}
      <ThingLink kind="security_group" id={id} name={nic.security_group_names[n]} project={project} />
    </Fragment>
  ));
}
