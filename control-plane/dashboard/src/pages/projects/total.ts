/** How many things there are in all states together; deleted ones do not count. */
export function totalOf(byState: Readonly<Record<string, number>> | undefined): number | undefined {
  if (byState === undefined) return undefined;
  return Object.entries(byState).reduce((sum, [state, number]) => (state === "deleted" ? sum : sum + number), 0);
}
