import { Tooltip } from "@mantine/core";
import type { Deployment } from "../../api/deployments.ts";
import classes from "./MembersBar.module.css";
import { membersByState, sayShares } from "./members-by-state.ts";

/** A small bar of the members of a deployment by state. */
export function MembersBar({ deployment }: { deployment: Deployment }) {
  const shares = membersByState(deployment);
  const said = sayShares(shares);
  return (
    <Tooltip label={said}>
      <div className={classes.bar} role="img" aria-label={said}>
        {shares.map(({ word, members, tone }) => (
          <div key={word} className={classes.share} data-tone={tone} style={{ flexGrow: members }} />
        ))}
      </div>
    </Tooltip>
  );
}
