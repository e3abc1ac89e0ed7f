import { useNow } from "./clock.ts";
import { exact, relative } from "./format.ts";

/** A time as people say it, with the exact one on hover. */
export function TimeAgo({ time }: { time: string | null | undefined }) {
  const now = useNow();
  if (time === null || time === undefined) return <>–</>;
  // Tables have hundreds of times: a `title` costs nothing, a tooltip of Mantine's half a millisecond each.
  return (
    <time dateTime={time} title={exact(time)} className="nowrap">
      {relative(Date.parse(time), now)}
    </time>
  );
}
