/** Text as keys of a US keyboard, which is the one that QEMU has. Pure; tested in type-text.test.ts. */

export interface Key {
  keysym: number;
  shift: boolean;
}

/** The most that is typed at once: it takes half a minute. */
export const mostTyped = 1024;
/** How many keys are sent together, and the pause after them. QEMU takes 100 presses and releases a second, and drops what its
 * queue has no room for. */
export const step = { keys: 5, pauseMs: 150 };

const shifted = '~!@#$%^&*()_+{}|:"<>?';
const named: Record<string, number> = { "\n": 0xff0d, "\t": 0xff09 };

/** The keys for a text, and the letters that a US keyboard does not have. */
export function keysOf(text: string): { keys: Key[]; missing: string[] } {
  const keys: Key[] = [];
  const missing = new Set<string>();
  for (const letter of text.replaceAll("\r\n", "\n")) {
    const code = letter.charCodeAt(0);
    const keysym = named[letter] ?? (code >= 0x20 && code <= 0x7e ? code : undefined);
    if (keysym === undefined) missing.add(letter);
    else keys.push({ keysym, shift: /[A-Z]/.test(letter) || shifted.includes(letter) });
  }
  return { keys, missing: [...missing] };
}
