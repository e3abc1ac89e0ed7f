/** How numbers and times read. Pure; tested in format.test.ts. */

const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

/** `1536` reads `1.5 KiB`. Three digits at most before the unit changes, one digit after the point below ten. */
export function bytes(count: number | null | undefined): string {
  if (count === null || count === undefined || !Number.isFinite(count)) return "–";
  let value = Math.abs(count);
  let unit = 0;
  // 1023.5 would be rounded to 1024.
  while (value >= 1023.5 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  const digits = unit > 0 && value < 9.95 && Math.abs(value - Math.round(value)) >= 0.05 ? 1 : 0;
  return `${count < 0 ? "-" : ""}${value.toFixed(digits)} ${units[unit]}`;
}

// Made once: `toLocaleString` makes one at each call, which takes longer than the rest of a row of a table.
const grouped = new Intl.NumberFormat("en-US");

/** `12345` reads `12,345`. */
export function count(value: number | null | undefined): string {
  return value === null || value === undefined ? "–" : grouped.format(value);
}

/** A length of time: `840 ms`, `2.4 s`, `3 min 20 s`, `2 h 5 min`, `4 d 2 h`. */
export function duration(ms: number | null | undefined): string {
  if (ms === null || ms === undefined || !Number.isFinite(ms)) return "–";
  const length = Math.max(0, ms);
  if (length < 9.95) return `${Number(length.toFixed(1))} ms`;
  if (length < 999.5) return `${Math.round(length)} ms`;
  if (length < 9_950) return `${(length / 1000).toFixed(1)} s`;
  const seconds = Math.round(length / 1000);
  if (seconds < 60) return `${seconds} s`;
  const pair = (big: number, bigUnit: string, small: number, smallUnit: string) =>
    small === 0 ? `${big} ${bigUnit}` : `${big} ${bigUnit} ${small} ${smallUnit}`;
  if (seconds < 3600) return pair(Math.floor(seconds / 60), "min", seconds % 60, "s");
  const minutes = Math.round(seconds / 60);
  if (minutes < 24 * 60) return pair(Math.floor(minutes / 60), "h", minutes % 60, "min");
  const hours = Math.round(minutes / 60);
  return pair(Math.floor(hours / 24), "d", hours % 24, "h");
}

/** How long ago or ahead a time is, in one unit: `now`, `12 s ago`, `3 min ago`, `in 5 h`. */
export function relative(time: number, now: number): string {
  const ahead = time > now;
  const seconds = Math.round(Math.abs(now - time) / 1000);
  if (seconds < 2) return "now";
  const text =
    seconds < 60
      ? `${seconds} s`
      : seconds < 3600
        ? `${Math.floor(seconds / 60)} min`
        : seconds < 48 * 3600
          ? `${Math.floor(seconds / 3600)} h`
          : seconds < 2 * 365 * 86_400
            ? `${Math.floor(seconds / 86_400)} d`
            : `${Math.floor(seconds / (365 * 86_400))} y`;
  return ahead ? `in ${text}` : `${text} ago`;
}

/** The exact time, in the reader's time zone: `2026-11-29 14:05:09.120 UTC+1`. */
export function exact(time: string): string {
  const date = new Date(time);
  if (Number.isNaN(date.getTime())) return time;
  const two = (value: number) => String(value).padStart(2, "0");
  const offset = -date.getTimezoneOffset();
  const hours = Math.trunc(Math.abs(offset) / 60);
  const minutes = Math.abs(offset) % 60;
  const zone = offset === 0 ? "UTC" : `UTC${offset < 0 ? "-" : "+"}${hours}${minutes === 0 ? "" : `:${two(minutes)}`}`;
  const day = `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
  const clock = `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
  return `${day} ${clock}.${String(date.getMilliseconds()).padStart(3, "0")} ${zone}`;
}

/** A share in percent without false precision: 0 only for nothing, 100 only for all. */
export function percent(part: number, whole: number): string {
  if (whole <= 0) return "–";
  const share = (100 * part) / whole;
  if (share > 0 && share < 1) return "<1%";
  if (share < 100 && share > 99) return "99%";
  return `${Math.round(share)}%`;
}

/**
 * When work that is `done` of `total` ends, in milliseconds from now, if it goes on at the pace it has had since
 * `startedAt`. Null while that cannot be told: too little is done, or it has run for less than a second.
 */
export function remainingMs(done: number, total: number, startedAt: number, now: number): number | null {
  const elapsed = now - startedAt;
  if (done <= 0 || total <= 0 || done >= total || elapsed < 1000) return null;
  return (elapsed / done) * (total - done);
}
