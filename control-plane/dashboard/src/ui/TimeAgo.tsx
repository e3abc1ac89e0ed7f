import { useSyncExternalStore } from "react";
import { now, subscribe } from "./clock.ts";
import { exact, relative } from "./format.ts";

/** A time as people say it, with the exact one on hover. */
export function TimeAgo({ time }: { time: string | null | undefined }) {
  return time === null || time === undefined ? <>–</> : <Ago time={time} />;
}

function Ago({ time }: { time: string }) {
  // Drawn again when its words change, and not at each tick of the clock.
  const words = useSyncExternalStore(subscribe, () => relative(Date.parse(time), now()));
  // Tables have hundreds of times: a `title` costs nothing, a tooltip of Mantine's half a millisecond each.
  return (
    <time dateTime={time} title={exact(time)} className="nowrap">
      {words}
    </time>
  );
}
