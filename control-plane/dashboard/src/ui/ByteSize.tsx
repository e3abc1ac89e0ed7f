import { bytes, count } from "./format.ts";

/** A size as people say it, with the exact number of bytes on hover. */
export function ByteSize({ value }: { value: number | null | undefined }) {
  if (value === null || value === undefined) return <>–</>;
  return (
    <span className="nowrap" title={`${count(value)} bytes`}>
      {bytes(value)}
    </span>
  );
}
