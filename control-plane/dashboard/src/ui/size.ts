/** Sizes as people write them, and as the command line takes them. Pure; tested in size.test.ts. */

const unitBytes: Record<string, number> = {
  "": 1,
  b: 1,
  k: 1024,
  kib: 1024,
  m: 1024 ** 2,
  mib: 1024 ** 2,
  g: 1024 ** 3,
  gib: 1024 ** 3,
  t: 1024 ** 4,
  tib: 1024 ** 4,
};

/** Reads `512 MiB`, `1.5GiB`, `2g` or a number of bytes; null if it is none. */
export function sizeOf(text: string): number | null {
  const parts = /^\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*$/i.exec(text);
  const unit = unitBytes[(parts?.[2] ?? "?").toLowerCase()];
  if (parts === null || unit === undefined) return null;
  const size = Number(parts[1]) * unit;
  return Number.isSafeInteger(size) ? size : null;
}

/** A size as the command line takes it, without loss. */
export function sizeText(size: number): string {
  for (const unit of ["TiB", "GiB", "MiB", "KiB"]) {
    const whole = size / (unitBytes[unit.toLowerCase()] as number);
    if (Number.isInteger(whole) && whole > 0) return `${whole}${unit}`;
  }
  return String(size);
}

/** What to write where a size cannot be read. */
export const sizeHint = "Write a size, such as 512 MiB or 2 GiB.";
