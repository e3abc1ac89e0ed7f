/** Which entries a text finds, best first. Pure; tested in rank.test.ts. */

export interface Findable {
  title: string;
  /** Further texts by which it is found: an id, other words. */
  words?: readonly string[];
}

/** The most that is shown. More typing finds more than more scrolling. */
export const mostShown = 60;

/** How well one word fits one text: whole, its beginning, the beginning of a part, anywhere, not at all. */
function closeness(word: string, text: string): number {
  const at = text.indexOf(word);
  if (at < 0) return 0;
  if (text.length === word.length) return 100;
  if (at === 0) return 60;
  for (let from = at; from >= 0; from = text.indexOf(word, from + 1)) {
    if (/[^a-z0-9]/.test(text.charAt(from - 1))) return 40;
  }
  return 20;
}

/** Every word has to be found in the title or in the further texts; the title counts more. 0: not found. */
function score(entry: Findable, words: readonly string[]): number {
  const title = entry.title.toLowerCase();
  const more = (entry.words ?? []).map((each) => each.toLowerCase());
  let sum = 0;
  for (const word of words) {
    const best = Math.max(2 * closeness(word, title), ...more.map((text) => closeness(word, text)), 0);
    if (best === 0) return 0;
    sum += best;
  }
  // Of two that fit alike the shorter one is closer to what was typed.
  return sum - Math.min(title.length, 60) / 100;
}

/** The entries that have all words of the text, best first; in the given order while nothing is typed. */
export function rank<T extends Findable>(entries: readonly T[], text: string): T[] {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  if (words.length === 0) return entries.slice(0, mostShown);
  return entries
    .map((entry) => ({ entry, points: score(entry, words) }))
    .filter(({ points }) => points > 0)
    .sort((a, b) => b.points - a.points)
    .slice(0, mostShown)
    .map(({ entry }) => entry);
}
