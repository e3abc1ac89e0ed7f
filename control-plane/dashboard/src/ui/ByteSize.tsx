import { Tooltip } from "@mantine/core";
import { bytes, count } from "./format.ts";

/** A size as people say it, with the exact number of bytes on hover. */
export function ByteSize({ value }: { value: number | null | undefined }) {
  if (value === null || value === undefined) return <>–</>;
  return (
    <Tooltip label={`${count(value)} bytes`}>
      <span className="nowrap">{bytes(value)}</span>
    </Tooltip>
  );
}
