import { Tooltip } from "@mantine/core";
import { useLiveState } from "../live/live.ts";
import classes from "./LiveDot.module.css";

const words = { connecting: "Connecting", live: "Live", lost: "Not live" } as const;
const meanings = {
  connecting: "Connecting to the stream of events.",
  live: "What you see follows the cluster by itself.",
  lost: "The stream of events is lost and is being tried again.",
} as const;

/** Whether the page is up to date by itself. */
export function LiveDot() {
  const { state } = useLiveState();
  return (
    <Tooltip label={meanings[state]}>
      <span className={classes.live} data-state={state} role="status">
        <span className={classes.dot} aria-hidden />
        <span className={classes.word}>{words[state]}</span>
      </span>
    </Tooltip>
  );
}
