/** Labels as `key=value`, in order. Pure; tested in labels.test.ts. */

export type Labels = Readonly<Record<string, string>>;

export function labelTexts(labels: Labels): string[] {
  return Object.entries(labels)
    .map(([key, value]) => `${key}=${value}`)
    .sort();
}

/** Reads `key=value` texts; a text without `=` is a key without a value. */
export function labelsOf(texts: readonly string[]): Record<string, string> {
  return Object.fromEntries(
    texts.map((text) => {
      const end = text.indexOf("=");
      return end < 0 ? [text.trim(), ""] : [text.slice(0, end).trim(), text.slice(end + 1).trim()];
    }),
  );
}
