/** Groups things by project: a call is about one project. Pure. */
export function byProject<Thing extends { project: string }>(things: readonly Thing[]): Thing[][] {
  const groups = new Map<string, Thing[]>();
  for (const thing of things) {
    const group = groups.get(thing.project);
    if (group === undefined) groups.set(thing.project, [thing]);
    else group.push(thing);
  }
  return [...groups.values()];
}
