/** Editing labels. Pure; tested in label-edits.test.ts. */

export type Labels = Readonly<Record<string, string>>;

/** A row of the form: a key and its value. */
export interface LabelRow {
  id: number;
  key: string;
  value: string;
}

export function rowsOf(labels: Labels): LabelRow[] {
  return Object.entries(labels)
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([key, value], id) => ({ id, key, value }));
}

/** What is wrong with a row: labels have unlike keys of 1 to 128 characters, and values of 256 at most. */
export function rowProblem(row: LabelRow, rows: readonly LabelRow[]): string | null {
  const key = row.key.trim();
  if (key === "") return row.value === "" ? null : "A label needs a key.";
  if (key.length > 128) return "A key has 128 characters at most.";
  if (row.value.length > 256) return "A value has 256 characters at most.";
  return rows.some((other) => other.id < row.id && other.key.trim() === key) ? "This key is there already." : null;
}

/** The merge patch that makes the labels what the rows say: null takes a label away. Rows without a key are left out. */
export function patchOf(before: Labels, rows: readonly LabelRow[]): Record<string, string | null> {
  const after = new Map(rows.map(({ key, value }) => [key.trim(), value] as const).filter(([key]) => key !== ""));
  const patch: Record<string, string | null> = {};
  for (const key of Object.keys(before)) if (!after.has(key)) patch[key] = null;
  for (const [key, value] of after) if (before[key] !== value) patch[key] = value;
  return patch;
}
