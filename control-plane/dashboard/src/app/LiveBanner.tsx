import { Alert } from "@mantine/core";
import { IconPlugConnectedX } from "@tabler/icons-react";
import { useLiveState } from "../live/live.ts";
import { useNow } from "../ui/clock.ts";
import { relative } from "../ui/format.ts";

/** A loss that mends itself within this time is not worth a banner. */
const patienceMs = 3_000;

/** Says that what is shown may be old, since when, and that it is being mended. */
export function LiveBanner() {
  const live = useLiveState();
  const now = useNow();
  if (live.state !== "lost" || now - live.since < patienceMs) return null;
  const wait = live.retryAt === undefined ? 0 : Math.max(0, live.retryAt - now);
  return (
    <Alert
      color="yellow"
      icon={<IconPlugConnectedX size={18} />}
      mb="md"
      role="status"
      title={`The connection to the controller was lost ${relative(live.since, now)}`}
    >
      What you see may be old. {wait > 0 ? `The next attempt is in ${Math.ceil(wait / 1000)} s.` : "Trying again now."}{" "}
      All that was missed is read when the connection is back.
    </Alert>
  );
}
