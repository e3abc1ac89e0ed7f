import { Tooltip } from "@mantine/core";
import { useNow } from "./clock.ts";
import { exact, relative } from "./format.ts";

/** A time as people say it, with the exact one on hover. */
export function TimeAgo({ time }: { time: string | null | undefined }) {
  const now = useNow();
  if (time === null || time === undefined) return <>–</>;
  return (
    <Tooltip label={exact(time)}>
      <time dateTime={time} className="nowrap">
        {relative(Date.parse(time), now)}
      </time>
    </Tooltip>
  );
}
