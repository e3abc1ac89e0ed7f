import { Text } from "@mantine/core";
import { duration } from "../../../ui/format.ts";
import { ToneIcon } from "../../../ui/StateBadge.tsx";
import { toneOf } from "../../../ui/states.ts";
import classes from "./Timeline.module.css";
import { lengthAt, steps, stepTitles, type Track } from "./tracks.ts";

/** What is known of one member, beside the pointer. */
export function TrackCard({ track, now }: { track: Track; now: number }) {
  const { state, name, reason, node_name, detail } = track.member;
  return (
    <div className={classes.card}>
      <div className={classes.cardHead}>
        <ToneIcon tone={toneOf(state)} size={13} />
        <b>{name}</b>
        <span>{state}</span>
        {reason !== null && <span>{reason}</span>}
      </div>
      {node_name !== undefined && <div>on {node_name}</div>}
      <dl>
        {steps.map((step) => (
          <div key={step}>
            <dt>{stepTitles[step]}</dt>
            <dd>{track.at[step] === null ? "–" : duration(track.at[step])}</dd>
          </div>
        ))}
      </dl>
      {track.ended === null && <div>waits for {duration(lengthAt(track, now))}</div>}
      {detail !== null && (
        <Text size="xs" maw={300}>
          {detail}
        </Text>
      )}
    </div>
  );
}

/** The same as a sentence for screen readers. */
export function sayTrack(track: Track, now: number): string {
  const { name, state, reason } = track.member;
  const why = reason === null ? "" : `, ${reason}`;
  const times = steps
    .filter((step) => track.at[step] !== null)
    .map((step) => `${stepTitles[step].toLowerCase()} after ${duration(track.at[step])}`);
  const waits = track.ended === null ? [`waits for ${duration(lengthAt(track, now))}`] : [];
  return [`${name}: ${state}${why}`, ...times, ...waits].join(", ");
}
